import itertools
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymrail import Outcome, Rollout, Task
from gymrail.collect.compare import compare, task_rewards
from gymrail.collect.estimators import student_interval

Make = Callable[..., Rollout]


def of(make: Make, rewards: dict[int, list[float]], environment: str = "a") -> list[Rollout]:
    return [
        make(index, repeat, reward, environment)
        for index, values in rewards.items()
        for repeat, reward in enumerate(values)
    ]


def test_tasks_that_both_runs_have_are_compared_pair_by_pair(make_rollout: Make) -> None:
    before = of(make_rollout, {0: [0, 0], 1: [0, 1], 2: [1, 1], 3: [1], 7: [0]})
    after = of(make_rollout, {0: [1, 1], 1: [1, 1], 2: [1, 0], 3: [0], 9: [1]})
    found = compare(task_rewards(before), task_rewards(after))
    changes = [1.0, 0.5, -0.5, -1.0]
    low, high = student_interval(changes)
    overall = found["overall"]
    assert overall["paired"]
    assert (overall["difference"], overall["low"], overall["high"]) == (statistics.fmean(changes), low, high)
    assert overall["tasks"] == {"before": 5, "after": 5, "shared": 4}
    assert (overall["before"], overall["after"]) == (0.625, 0.625)
    assert found["environments"] == {"a": overall}


def test_the_tasks_that_flipped_are_named_with_their_pass_rates(make_rollout: Make) -> None:
    before = of(make_rollout, {0: [0, 0, 0], 1: [0, 1, 1], 2: [1, 1, 1], 3: [0.9]})
    after = of(make_rollout, {0: [1, 0, 1], 1: [1, 1, 1], 2: [0, 0, 1, 0], 3: [0.1]})
    found = compare(task_rewards(before), task_rewards(after))
    ids = [make_rollout(index).task.id for index in range(4)]
    gained = {"environment": "a", "task_id": ids[0], "before": 0.0, "after": pytest.approx(2 / 3), "rollouts": [3, 3]}
    lost = {"environment": "a", "task_id": ids[2], "before": 1.0, "after": 0.25, "rollouts": [3, 4]}
    assert (found["gained"], found["lost"]) == ([gained], [lost])


def test_runs_without_a_task_in_common_are_independent_samples(make_rollout: Make) -> None:
    before = of(make_rollout, {0: [0.0], 1: [0.5], 2: [1.0]})
    after = of(make_rollout, {10: [1.0], 11: [0.9]})
    found = compare(task_rewards(before), task_rewards(after))
    assert not found["overall"]["paired"]
    assert found["overall"]["difference"] == pytest.approx(0.45)
    assert found["overall"]["low"] < 0.45 < found["overall"]["high"]
    assert found["gained"] == found["lost"] == []


def test_a_task_is_the_same_wherever_it_stood_and_failures_do_not_count(make_rollout: Make) -> None:
    task = Task.ask("one question")
    before = Rollout("a", task, "1", task_index=0, reward=0.0, outcome=Outcome("scored"))
    after = Rollout("a", task, "2", task_index=5, reward=1.0, outcome=Outcome("scored"))
    found = compare(task_rewards([before, make_rollout(3, 0, None, "a")]), task_rewards([after]))
    assert [flipped["task_id"] for flipped in found["gained"]] == [task.id]
    assert found["overall"]["tasks"] == {"before": 1, "after": 1, "shared": 1}


def test_environments_are_compared_each_on_its_own(make_rollout: Make) -> None:
    before = [*of(make_rollout, {0: [0.0], 1: [0.0]}, "a"), *of(make_rollout, {0: [1.0], 1: [1.0]}, "b")]
    after = [*of(make_rollout, {0: [1.0], 1: [0.0]}, "a"), *of(make_rollout, {0: [0.0], 1: [1.0]}, "b")]
    found = compare(task_rewards(before), task_rewards(after))
    assert {name: row["difference"] for name, row in found["environments"].items()} == {"a": 0.5, "b": -0.5}
    assert found["overall"]["difference"] == 0.0
    assert ([t["environment"] for t in found["gained"]], [t["environment"] for t in found["lost"]]) == (["a"], ["b"])


def test_a_run_compared_with_nothing_has_no_difference() -> None:
    found = compare({}, {})
    assert found["overall"]["difference"] is None
    assert found["environments"] == {}


rewards = st.dictionaries(st.integers(0, 5), st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=3))


@given(rewards, rewards)
def test_comparing_the_other_way_round_turns_the_sign_and_swaps_the_flips(
    one: dict[int, list[float]], two: dict[int, list[float]]
) -> None:
    tasks = [
        task_rewards(
            Rollout("a", Task.ask(f"q{i}"), f"{i}", i, reward=value, outcome=Outcome("scored"))
            for i, values in run.items()
            for value in values
        )
        for run in (one, two)
    ]
    there, back = compare(tasks[0], tasks[1]), compare(tasks[1], tasks[0])
    if there["overall"]["difference"] is not None:
        assert there["overall"]["difference"] == pytest.approx(-back["overall"]["difference"], abs=1e-12)
    assert {t["task_id"] for t in there["gained"]} == {t["task_id"] for t in back["lost"]}
    solved = [{i for i, v in run.items() if 2 * v.count(1.0) >= len(v)} for run in (one, two)]
    both = one.keys() & two.keys()
    assert len(there["gained"]) == len((solved[1] - solved[0]) & both)
    assert len(list(itertools.chain(there["gained"], there["lost"]))) == len((solved[0] ^ solved[1]) & both)
