"""Mixtures that are drawn batch by batch: shares, schedules, floors, epochs, curriculum, and going on from a state."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gymrail.data.member import Member
from gymrail.data.mixing import Curriculum, DynamicSampling, Late, Mixing
from gymrail.data.mixture import Group, Mixture
from gymrail.data.mixture_stream import Measured, MixtureStream
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec

Quiz = Callable[..., EnvironmentSpec]
fixture_is_constant = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def named(sums: EnvironmentSpec, name: str) -> EnvironmentSpec:
    return EnvironmentSpec(name, sums.cls)


def names(groups: Iterable[Group]) -> Counter[str]:
    return Counter(group.spec.name for group in groups)


def observe(stream: MixtureStream, groups: Iterable[Group], tokens: dict[str, int] | None = None) -> None:
    stream.observe([Measured(group, [0.0, 1.0], (tokens or {}).get(group.spec.name, 10)) for group in groups])


@fixture_is_constant
@given(weights=st.lists(st.floats(0.1, 20), min_size=1, max_size=6), size=st.integers(1, 40), seed=st.integers(0, 3))
def test_shares_by_episodes_are_the_weights_within_two_groups_per_environment(
    sums: EnvironmentSpec, weights: list[float], size: int, seed: int
) -> None:
    members = [Member(named(sums, f"e{index}"), weight) for index, weight in enumerate(weights)]
    stream = MixtureStream(Mixture(members, seed, Mixing(dynamic_sampling=DynamicSampling())))
    seen: Counter[str] = Counter()
    for _ in range(400 // size):
        groups = stream.batch(size)
        observe(stream, groups)
        seen += names(groups)
    drawn = sum(seen.values())
    assert stream.slots == drawn
    for index, weight in enumerate(weights):
        assert abs(seen[f"e{index}"] - drawn * weight / sum(weights)) < 2


def test_shares_by_tokens_follow_what_was_measured(sums: EnvironmentSpec) -> None:
    members = [Member(named(sums, "short"), 1.0), Member(named(sums, "long"), 1.0), Member(named(sums, "other"), 2.0)]
    stream = MixtureStream(Mixture(members, 0, Mixing(unit="tokens")))
    tokens: Counter[str] = Counter()
    rng = Random("lengths")
    for _ in range(100):
        groups = stream.batch(16)
        measured = []
        for group in groups:
            length = round({"short": 20, "long": 300, "other": 80}[group.spec.name] * rng.uniform(0.5, 1.5))
            tokens[group.spec.name] += length
            measured.append(Measured(group, [0.0], length))
        stream.observe(measured)
    total = sum(tokens.values())
    assert {name: round(count / total, 2) for name, count in tokens.items()} == pytest.approx(
        {"short": 0.25, "long": 0.25, "other": 0.5}, abs=0.011
    )


def test_a_schedule_is_linear_between_its_points(sums: EnvironmentSpec) -> None:
    member = Member(named(sums, "late"), schedule=((10, 0.0), (20, 3.0)))
    assert [member.weight_at(step) for step in (0, 10, 15, 20, 99)] == [0.0, 0.0, 1.5, 3.0, 3.0]

    stream = MixtureStream(Mixture([member, Member(named(sums, "first"))]))
    counts = []
    for step in (0, 5, 12, 20, 30, 40):
        groups = stream.batch(40, step)
        observe(stream, groups)
        counts.append(names(groups)["late"])
    assert counts[:2] == [0, 0]
    assert counts[2] == pytest.approx(40 * 0.6 / 1.6, abs=1)
    assert counts[3:] == [pytest.approx(30, abs=1)] * 3


def test_a_floor_holds_in_every_batch_and_the_others_keep_their_proportions(sums: EnvironmentSpec) -> None:
    members = [
        Member(named(sums, "rare"), 0.01, floor=2),
        Member(named(sums, "much"), 4.0),
        Member(named(sums, "some"), 2.0),
    ]
    stream = MixtureStream(Mixture(members))
    batches = [stream.batch(8) for _ in range(60)]
    assert all(names(batch)["rare"] == 2 for batch in batches)
    seen = names(group for batch in batches for group in batch)
    assert seen["much"] == pytest.approx(240, abs=2)
    assert seen["some"] == pytest.approx(120, abs=2)


def test_floors_that_do_not_fit_into_a_batch_are_refused(sums: EnvironmentSpec) -> None:
    stream = MixtureStream(Mixture([Member(named(sums, "a"), floor=3), Member(named(sums, "b"), floor=2)]))
    with pytest.raises(InputError, match="5 groups in a batch of 4"):
        stream.batch(4)


def test_an_environment_whose_epochs_are_over_leaves_its_share_to_the_others(make_quiz: Quiz) -> None:
    members = [Member(make_quiz("few", 3), epochs=2), Member(make_quiz("many", 50), epochs=1)]
    mixture = Mixture(members)
    assert mixture.length == 56
    stream = MixtureStream(mixture)
    batches = [stream.batch(10) for _ in range(7)]
    assert [len(batch) for batch in batches] == [10, 10, 10, 10, 10, 6, 0]
    tasks = Counter((group.spec.name, group.task_index) for batch in batches for group in batch)
    assert {count for (name, _), count in tasks.items() if name == "few"} == {2}
    assert {count for (name, _), count in tasks.items() if name == "many"} == {1}
    assert Mixture([*members, Member(make_quiz("endless", 4))]).length is None


def test_temperature_evens_shares_out_and_size_counts_where_asked(make_quiz: Quiz) -> None:
    members = [Member(make_quiz("small", 10)), Member(make_quiz("large", 90))]

    def shares(**options: float) -> dict[str, float]:
        return Mixture(members, 0, Mixing.model_validate(options)).shares(0)

    assert shares() == {"small": 0.5, "large": 0.5}
    assert shares(size_exponent=1.0) == pytest.approx({"small": 0.1, "large": 0.9})
    assert shares(size_exponent=0.5) == pytest.approx({"small": 0.25, "large": 0.75})
    assert shares(size_exponent=1.0, temperature=2.0) == pytest.approx({"small": 0.25, "large": 0.75})
    assert Mixture(members, 0, Mixing(size_exponent=1.0)).counts(1000) == {"small": 100, "large": 900}


def test_a_curriculum_comes_back_to_tasks_in_the_band_and_passes_over_the_others(make_quiz: Quiz) -> None:
    mixture = Mixture(
        [Member(make_quiz("quiz", 30))], 0, Mixing(curriculum=Curriculum(fresh=0.25, rest=0, refresh_steps=10))
    )
    stream = MixtureStream(mixture)
    played: list[Counter[int]] = []
    for step in range(40):
        groups = stream.batch(6, step)
        assert len({group.task_index for group in groups}) == 6
        # Tasks 0 to 9 never pass, 10 to 19 pass half of the time, 20 to 29 always.
        stream.observe(
            [Measured(group, [float(group.task_index >= 20), float(group.task_index >= 10)], 5) for group in groups]
        )
        played.append(Counter(group.task_index for group in groups))
    early = sum(played[:5], Counter())
    late = sum(played[20:], Counter())
    assert len(early) >= 12
    teaching = sum(count for task, count in late.items() if 10 <= task < 20)
    assert teaching / sum(late.values()) > 0.6
    # Refreshed: each of the others was measured again, at most once in ten steps.
    others = [late[task] for task in (*range(10), *range(20, 30))]
    assert 1 <= min(others) <= max(others) <= 2


def test_a_task_that_was_mastered_leaves_the_queue(sums: EnvironmentSpec) -> None:
    stream = MixtureStream(Mixture([Member(sums)], 0, Mixing(curriculum=Curriculum(fresh=0.01, rest=0))))
    (first,) = stream.batch(1)
    stream.observe([Measured(first, [0.0, 1.0], 5)])
    (fresh,) = stream.batch(1)
    stream.observe([Measured(fresh, [1.0, 1.0], 5)])
    (again,) = stream.batch(1)
    assert (fresh.task.id == first.task.id, again.task.id == first.task.id) == (False, True)
    for _ in range(5):
        stream.observe([Measured(again, [1.0, 1.0], 5)])
        (again,) = stream.batch(1)
        if again.task.id != first.task.id:
            break
    assert again.task.id != first.task.id


def test_a_task_that_stays_out_of_the_band_is_measured_ever_more_seldom(make_quiz: Quiz) -> None:
    mixture = Mixture([Member(make_quiz("quiz", 8))], 0, Mixing(curriculum=Curriculum(fresh=1.0, refresh_steps=4)))
    stream = MixtureStream(mixture)
    measured: list[int] = []
    for step in range(70):
        groups = stream.batch(2, step)
        # Task 0 never passes; all others teach, and as `fresh` is 1 they come whenever nothing else is due.
        stream.observe([Measured(group, [0.0, float(group.task_index > 0)], 5) for group in groups])
        measured += [step for group in groups if group.task_index == 0]
    waits = [after - before for before, after in itertools.pairwise(measured)]
    assert len(waits) >= 3
    assert waits == sorted(waits)
    assert all(wait >= 4 * 2**times for times, wait in enumerate(waits))


def test_refills_come_from_the_queue_and_are_known_to_teach(make_quiz: Quiz) -> None:
    stream = MixtureStream(
        Mixture([Member(make_quiz("quiz", 40))], 0, Mixing(curriculum=Curriculum(fresh=1.0, rest=0)))
    )
    first = stream.batch(6)
    assert not any(group.is_known for group in first)
    stream.observe([Measured(group, [0.0, float(place < 3)], 5) for place, group in enumerate(first)])
    second = stream.batch(2)
    assert not {group.task_index for group in second} & {group.task_index for group in first}
    refills = [stream.another(second[0]) for _ in range(4)]
    assert [refill is not None and refill.is_known for refill in refills] == [True, True, True, False]
    assert [refill and refill.task_index for refill in refills[:3]] == [group.task_index for group in first[:3]]


def test_a_task_rests_before_it_comes_again(sums: EnvironmentSpec, make_quiz: Quiz) -> None:
    def gaps(spec: EnvironmentSpec) -> list[int]:
        stream = MixtureStream(Mixture([Member(spec)], 0, Mixing(curriculum=Curriculum(fresh=0.1, rest=12))))
        drawn: list[str] = []
        for step in range(30):
            groups = stream.batch(4, step)
            drawn += (group.task.id for group in groups)
            observe(stream, groups)
        last = {task: -1000 for task in drawn}
        found = []
        for place, task in enumerate(drawn):
            found.append(place - last[task])
            last[task] = place
        return [gap for gap in found if gap < 1000]

    again = gaps(sums)
    assert min(again) > 12
    assert len(again) > 60
    # Where the dataset has nothing else, it does not wait.
    assert max(gaps(make_quiz("quiz", 5))) < 12


def test_a_group_without_any_reward_changes_no_measurement(sums: EnvironmentSpec, make_quiz: Quiz) -> None:
    members = [Member(named(sums, "broken")), Member(make_quiz("fine", 5))]
    stream = MixtureStream(Mixture(members, 0, Mixing(unit="tokens", curriculum=Curriculum())))
    for step in range(6):
        groups = stream.batch(4, step)
        stream.observe(
            [Measured(group, [] if group.spec.name == "broken" else [0.0, 1.0], 10) for group in groups], step
        )
        assert names(groups) == {"broken": 2, "fine": 2}


def test_a_refill_is_of_the_same_environment_and_changes_no_share(sums: EnvironmentSpec) -> None:
    members = [Member(named(sums, "a"), 3.0), Member(named(sums, "b"))]
    stream = MixtureStream(Mixture(members, 0, Mixing(dynamic_sampling=DynamicSampling())))
    seen: Counter[str] = Counter()
    for _ in range(20):
        groups = stream.batch(4)
        refills = [stream.another(group) for group in groups if group.spec.name == "b"]
        assert all(refill is not None and refill.spec.name == "b" for refill in refills)
        observe(stream, [*groups, *(refill for refill in refills if refill)])
        seen += names(groups)
    assert seen == {"a": 60, "b": 20}


@pytest.mark.parametrize("unit", ["episodes", "tokens"])
def test_a_stream_goes_on_from_its_state_with_the_same_groups(
    unit: str, sums: EnvironmentSpec, make_quiz: Quiz
) -> None:
    def stream() -> MixtureStream:
        members = [
            Member(named(sums, "a"), schedule=((0, 1.0), (12, 5.0))),
            Member(make_quiz("b", 20), 2.0, floor=1),
            Member(make_quiz("c", 9)),
        ]
        return MixtureStream(Mixture(members, 3, Mixing.model_validate({"unit": unit, "curriculum": {"fresh": 0.3}})))

    def run(stream: MixtureStream, steps: range) -> list[list[tuple[int, str, str]]]:
        batches = []
        for step in steps:
            groups = stream.batch(8, step)
            batches.append([(group.index, group.spec.name, group.task.id) for group in groups])
            rewards = [[float(Random(f"{group.task.id}:{i}").random() < 0.5) for i in range(4)] for group in groups]
            stream.observe(
                Measured(group, reward, 20 + 7 * len(group.spec.name) + group.index % 5)
                for group, reward in zip(groups, rewards, strict=True)
            )
        return batches

    whole = run(stream(), range(16))
    first = stream()
    run(first, range(7))
    saved = json.loads(json.dumps(first.state()))
    second = stream()
    second.restore(saved)
    assert second.slots == 56
    assert run(second, range(7, 16)) == whole[7:]


def test_a_state_of_another_mixture_is_refused(sums: EnvironmentSpec) -> None:
    state = MixtureStream(Mixture([Member(sums, floor=1)])).state()
    for other in (Mixture([Member(sums, floor=2)]), Mixture([Member(sums, floor=1)], 0, Mixing(unit="tokens"))):
        with pytest.raises(InputError, match="changed since"):
            MixtureStream(other).restore(state)


def test_a_mixture_that_changes_has_no_groups_by_index(sums: EnvironmentSpec) -> None:
    for mixture in (
        Mixture([Member(sums, schedule=((0, 1.0), (5, 2.0)))]),
        Mixture([Member(sums)], 0, Mixing(late=Late())),
    ):
        assert not mixture.is_plain
        with pytest.raises(InputError, match="batch by batch"):
            mixture.group(0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": ((0, 1.0), (0, 2.0))}, "must rise"),
        ({"schedule": ((0, -1.0),)}, "weight -1.0"),
        ({"schedule": ((0.5, 1.0),)}, "a point is"),
        ({"schedule": ((0, 1.0), (5, 0.0), (9, 0.0), (12, 1.0))}, "step 5 every weight"),
        ({"schedule": ((0, 0.0), (1, 1.0))}, "step 0 every weight"),
        ({"floor": -1}, "floor of 'sums' is -1"),
        ({"epochs": 2}, "generator and have no epochs"),
        ({"epochs": 0, "limit": 5}, "epochs of 'sums' is 0"),
        ({"concurrency": 0}, "concurrency of 'sums' is 0"),
        ({"deadline_seconds": 0}, "deadline_seconds of 'sums' is 0"),
        ({"reward_scale": 0}, "reward_scale of 'sums' is 0"),
        ({"reward_scale": float("nan")}, "reward_scale"),
    ],
)
def test_bad_members_are_refused(options: dict[str, object], words: str, sums: EnvironmentSpec) -> None:
    with pytest.raises(InputError, match=words):
        Mixture([Member(sums, **options)])  # type: ignore[arg-type]


def test_settings_that_exclude_each_other_are_refused(sums: EnvironmentSpec, make_quiz: Quiz) -> None:
    with pytest.raises(InputError, match="size_exponent needs a number of tasks"):
        Mixture([Member(sums)], 0, Mixing(size_exponent=0.5))
    with pytest.raises(InputError, match="has epochs, and a curriculum"):
        Mixture([Member(make_quiz("quiz", 3), epochs=1)], 0, Mixing(curriculum=Curriculum()))


@pytest.mark.parametrize(
    "options",
    [
        {"unit": "words"}, {"temperature": 0}, {"size_exponent": 2}, {"curriculum": {"band": [0.9, 0.1]}},
        {"curriculum": {"fresh": 0}}, {"dynamic_sampling": {"refills": -1}}, {"dynamic_sampling": {"probe": 1}},
        {"late": {"quorum": 1}}, {"late": {"patience": 0.5}}, {"tempreature": 1},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Mixing.model_validate(options)
