import itertools
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gymrail.data.mixture import Member, Mixture
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec
from tests.yardstick import seconds_of_steps

Quiz = Callable[..., EnvironmentSpec]

weights = st.lists(st.integers(1, 50) | st.floats(0.001, 100), min_size=1, max_size=7)
fixture_is_constant = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def members_of(sums: EnvironmentSpec, weights: list[float]) -> list[Member]:
    return [Member(EnvironmentSpec(f"sums{index}", sums.cls), weight) for index, weight in enumerate(weights)]


@fixture_is_constant
@given(weights=weights, seed=st.integers(0, 5))
def test_every_prefix_is_within_one_group_of_the_exact_shares(
    sums: EnvironmentSpec, weights: list[float], seed: int
) -> None:
    mixture = Mixture(members_of(sums, weights), seed)
    total = sum(Fraction(str(weight)) for weight in weights)
    seen: Counter[str] = Counter()
    for index in range(300):
        seen[_name_at(mixture, index)] += 1
        for number, weight in enumerate(weights):
            assert abs(seen[f"sums{number}"] - (index + 1) * Fraction(str(weight)) / total) < 1
    assert mixture.counts(300) == {member.spec.name: seen[member.spec.name] for member in mixture.members}


def _name_at(mixture: Mixture, index: int) -> str:
    # The schedule alone, without making the tasks.
    return mixture.members[mixture._schedule.at(index)[0]].spec.name


@fixture_is_constant
@given(weights=weights, order=st.permutations(range(60)))
def test_a_group_depends_on_its_index_alone(
    sums: EnvironmentSpec, make_quiz: Quiz, weights: list[float], order: list[int]
) -> None:
    members = [*members_of(sums, weights), Member(make_quiz("quiz", 7), 2.0)]
    forward, shuffled = Mixture(members, 3), Mixture(members[::-1], 3)
    groups = [forward.group(index) for index in range(60)]
    for index in order:
        again = shuffled.group(index)
        assert (again.index, again.spec.name, again.task_index, again.task.id) == (
            index,
            groups[index].spec.name,
            groups[index].task_index,
            groups[index].task.id,
        )


def test_far_groups_follow_the_same_pattern(sums: EnvironmentSpec) -> None:
    near, far = Mixture(members_of(sums, [3, 2]), 0), Mixture(members_of(sums, [3, 2]), 0)
    start = 10**12
    assert [_name_at(far, start + index) for index in range(10)] == [_name_at(near, index) for index in range(10)]
    assert far.counts(start + 1)["sums0"] in (3 * start // 5, 3 * start // 5 + 1)
    assert far.group(start).task_index in (3 * start // 5, 2 * start // 5)


def test_a_finite_dataset_is_played_through_in_every_epoch_each_time_in_a_new_order(make_quiz: Quiz) -> None:
    mixture = Mixture([Member(make_quiz("quiz", 20))], seed=1)
    epochs = [[mixture.group(20 * epoch + place).task_index for place in range(20)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other_seed = Mixture([Member(make_quiz("quiz", 20))], seed=2)
    assert [other_seed.group(place).task_index for place in range(20)] != epochs[0]
    assert all(group.task.row["answer"] == str(group.task_index) for group in itertools.islice(mixture.groups(7), 40))


def test_a_generator_goes_on_with_new_tasks_and_a_limit_makes_it_finite(sums: EnvironmentSpec) -> None:
    endless, limited = Mixture([Member(sums)]), Mixture([Member(sums, limit=5)])
    assert len({endless.group(index).task.id for index in range(50)}) == 50
    assert [endless.group(index).task_index for index in range(50)] == list(range(50))
    assert {limited.group(index).task.id for index in range(50)} == {endless.group(index).task.id for index in range(5)}


def test_shares_are_those_of_the_groups_so_far(sums: EnvironmentSpec) -> None:
    mixture = Mixture(members_of(sums, [3, 1]))
    assert mixture.shares(0) == {"sums0": 0.75, "sums1": 0.25}
    assert mixture.shares(4_000) == {"sums0": 0.75, "sums1": 0.25}
    assert sum(mixture.shares(7).values()) == pytest.approx(1.0)


def test_the_seed_settles_which_of_equal_members_begins(sums: EnvironmentSpec) -> None:
    firsts = {_name_at(Mixture(members_of(sums, [1, 1, 1]), seed), 0) for seed in range(20)}
    assert firsts == {"sums0", "sums1", "sums2"}


def test_the_fingerprint_tells_mixtures_apart(sums: EnvironmentSpec, make_quiz: Quiz) -> None:
    def prints(
        weight: float = 1.0,
        seed: int = 0,
        count: int = 5,
        limit: int | None = None,
        config: dict[str, Any] | None = None,
    ) -> str:
        return Mixture([Member(make_quiz("quiz", count)), Member(sums, weight, limit=limit)], seed).fingerprint

    same = Mixture([Member(sums), Member(make_quiz("quiz", 5))]).fingerprint
    assert prints() == prints() == prints(weight=1) == same
    assert len({prints(), prints(weight=2), prints(seed=1), prints(count=6), prints(limit=9)}) == 5


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf"), True, "2"])
def test_a_weight_must_be_a_finite_number_above_zero(sums: EnvironmentSpec, weight: Any) -> None:
    with pytest.raises(InputError, match=rf"The weight of 'sums' is {weight!r}; it must be a finite number above 0"):
        Mixture([Member(sums, weight)])


def test_a_mixture_that_makes_no_sense_is_refused(sums: EnvironmentSpec, make_quiz: Quiz) -> None:
    with pytest.raises(InputError, match="no members"):
        Mixture([])
    with pytest.raises(InputError, match="names 'sums' twice"):
        Mixture([Member(sums), Member(sums, 2.0)])
    with pytest.raises(InputError, match="The limit of 'sums' is 0"):
        Mixture([Member(sums, limit=0)])
    with pytest.raises(InputError, match="Group -1 does not exist"):
        Mixture([Member(sums)]).group(-1)
    with pytest.raises(InputError, match="The train split of 'quiz' has no tasks"):
        Mixture([Member(make_quiz("quiz", 0))]).group(0)
    with pytest.raises(InputError, match="quiz has no split 'validation'"):
        Mixture([Member(make_quiz("quiz", 3), split="validation")]).group(0)


def test_going_forward_costs_the_same_however_far(make_quiz: Quiz) -> None:
    # Weights whose pattern never repeats within reach, and a dataset with many epochs.
    mixture = Mixture([Member(make_quiz("a", 100), 0.123456789), Member(make_quiz("b", 100), 1.987654321)])
    assert mixture._schedule._period > 10**9
    mixture.group(0)
    started = time.process_time()
    for index in range(20_000):
        mixture.group(index)
    assert time.process_time() - started < 35 * seconds_of_steps()  # 50 microseconds each on a fast core
