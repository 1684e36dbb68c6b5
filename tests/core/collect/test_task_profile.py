import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from gymrail import Rollout
from gymrail.collect.task_profile import profile_rows
from gymrail.data.jsonl import read_tasks, write_jsonl
from gymrail.data.mixture import Member, Mixture
from gymrail.data.profiled import read_profiled
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec

Make = Callable[..., Rollout]


def played(counter: EnvironmentSpec, make: Make) -> Iterator[Rollout]:
    """Task i passes in i of its four rollouts."""
    for index in range(5):
        task = counter.generate("train", index)
        for repeat in range(4):
            rollout = make(index, repeat, float(repeat < index))
            rollout.task = task
            yield rollout


def test_a_profile_is_the_tasks_rows_with_their_statistics(counter: EnvironmentSpec, make_rollout: Make) -> None:
    rollouts = list(played(counter, make_rollout))
    Random(3).shuffle(rollouts)
    rows = list(profile_rows([*rollouts, make_rollout(9, 0, None)]))
    assert len(rows) == 5
    for index, row in enumerate(rows):
        rewards = [float(repeat < index) for repeat in range(4)]
        assert row.pop("_profile") == {
            "environment": "counter", "task_index": index, "count": 4, "pass_rate": index / 4, "mean": index / 4,
            "std": pytest.approx(statistics.stdev(rewards)), "min": min(rewards), "max": max(rewards),
        }  # fmt: skip
        assert row == counter.generate("train", index).row


def test_one_rollout_has_no_spread(make_rollout: Make) -> None:
    (row,) = profile_rows([make_rollout(0, 0, 0.3)])
    assert (row["_profile"]["std"], row["_profile"]["pass_rate"], row["_profile"]["mean"]) == (None, 0.0, 0.3)


def test_a_profiled_task_is_still_the_same_task(counter: EnvironmentSpec, make_rollout: Make, tmp_path: Path) -> None:
    path = tmp_path / "profile.jsonl"
    write_jsonl(profile_rows(played(counter, make_rollout)), path)
    ids = [counter.generate("train", index).id for index in range(5)]
    assert [task.id for task in read_tasks(path, counter.cls.task_type)] == ids
    profiled = read_profiled(path, counter.cls.task_type, "counter", (0.0, 1.0))
    assert [entry.task.id for entry in profiled] == ids


def test_a_mixture_trains_on_the_tasks_whose_pass_rate_lies_within(
    counter: EnvironmentSpec, make_rollout: Make, tmp_path: Path
) -> None:
    path = tmp_path / "profile.jsonl"
    write_jsonl(profile_rows(played(counter, make_rollout)), path)
    mixture = Mixture([Member(counter, profile=path, pass_rate=(0.25, 0.75))])
    epochs = [sorted(mixture.group(index + 3 * epoch).task.id for index in range(3)) for epoch in range(2)]
    wanted = sorted(counter.generate("train", index).id for index in (1, 2, 3))
    assert epochs == [wanted, wanted]
    other = Mixture([Member(counter, profile=path, pass_rate=(0.25, 1.0))])
    assert mixture.fingerprint != other.fingerprint
    assert len({Mixture([Member(counter, profile=path, limit=2)]).group(index).task.id for index in range(8)}) == 2


def test_no_task_in_the_range_is_an_error_that_tells_the_range_there_is(
    counter: EnvironmentSpec, make_rollout: Make, tmp_path: Path
) -> None:
    path = tmp_path / "profile.jsonl"
    write_jsonl(profile_rows(played(counter, make_rollout)), path)
    with pytest.raises(InputError, match=r"pass rate of 0\.3 to 0\.4: its 5 tasks pass at 0 to 1"):
        Mixture([Member(counter, profile=path, pass_rate=(0.3, 0.4))]).group(0)
    with pytest.raises(InputError, match=r"'other'.*none at all"):
        read_profiled(path, counter.cls.task_type, "other", (0.0, 1.0))


def test_a_dataset_without_pass_rates_is_refused_by_line(counter: EnvironmentSpec, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    write_jsonl([counter.generate("train", 0).row], path)
    with pytest.raises(InputError, match="line 1: no pass rate; `gymrail profile RUN"):
        read_profiled(path, counter.cls.task_type, "counter", (0.0, 1.0))
