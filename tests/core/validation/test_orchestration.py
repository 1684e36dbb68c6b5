"""The lines of `validate-trainer` on mixtures and on orchestration: they pass for what is sound, and a planted fault is
found by the line that is about it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gymrail import Rollout
from gymrail.collect.batch_metrics import batch_metrics
from gymrail.collect.runner import collect
from gymrail.data.mixture import Group, Mixture
from gymrail.tokens import TokenSequence, TrainingRow
from gymrail.validation.orchestration import check_orchestration
from gymrail.validation.report import Line
from gymrail.validation.several import check_several
from tests.core.validation.small import Echo, Number, Press, plan_of

MIXINGS: list[dict[str, Any]] = [
    {},
    {"mixing": {"unit": "tokens", "curriculum": {}, "dynamic_sampling": {"refills": 1, "probe": 2}}},
    {"mixing": {"late": {"quorum": 0.9, "patience": 50.0}}},
]


def statuses(lines: Iterator[Line]) -> dict[str, str]:
    return {line.name: line.status for line in lines}


def failure(lines: Iterator[Line]) -> Line:
    """The one line that failed."""
    (line,) = [line for line in lines if line.status == "FAIL"]
    return line


@pytest.mark.parametrize("keys", MIXINGS)
def test_every_line_passes_for_a_sound_mixture(tmp_path: Path, keys: dict[str, Any]) -> None:
    plan = plan_of(tmp_path, weights=(1.0, 2.5), **keys)
    assert statuses(check_several(plan)) == {"one batch": "PASS", "a missing metric": "PASS"}
    names = ("parallel", "a failed episode", "a slow episode", "stop and go on")
    assert statuses(check_orchestration(plan)) == dict.fromkeys(names, "PASS")


def test_a_recipe_of_one_environment_has_nothing_to_mix(tmp_path: Path) -> None:
    assert set(statuses(check_several(plan_of(tmp_path, Echo))).values()) == {"SKIPPED"}


def test_a_mixture_that_draws_one_environment_alone_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Mixture.group

    def alone(self: Mixture, index: int) -> Group:
        found = group(self, index)
        task_index, task = self.tasks[0].at(index)
        return Group(found.index, self.members[0].spec, task, task_index)

    monkeypatch.setattr(Mixture, "group", alone)
    line = next(check_several(plan_of(tmp_path)))
    assert line.status == "FAIL"
    assert "echo has 4 of 4 groups, and its weight asks for 2" in line.detail


def test_an_environment_that_breaks_is_found_in_its_batch(tmp_path: Path) -> None:
    class Broken(Press):
        def verify(self, rollout: Rollout) -> Any:
            raise ValueError("no such row")

    line = next(check_several(plan_of(tmp_path, Echo, Broken)))
    assert line.status == "FAIL"
    assert "ValueError: no such row" in line.detail


def test_metrics_that_fail_together_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(rollouts: Sequence[Rollout]) -> dict[str, float]:
        complete = all(rollout.reward is not None for rollout in rollouts)
        return {key: value for key, value in batch_metrics(rollouts).items() if complete or "reward" not in key}

    monkeypatch.setattr("gymrail.validation.several.batch_metrics", careless)
    line = failure(check_several(plan_of(tmp_path)))
    assert line.name == "a missing metric"
    assert "env/echo/reward changes from 1 to None when press has no reward" in line.detail


def test_episodes_that_wait_for_each_other_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def one_by_one(*arguments: Any, **options: Any) -> Any:
        return await collect(*arguments, **{**options, "concurrency": 1})

    monkeypatch.setattr("gymrail.validation.plan.collect", one_by_one)
    monkeypatch.setattr("gymrail.validation.orchestration._WAIT_SECONDS", 0.05)
    lines = {line.name: line for line in check_orchestration(plan_of(tmp_path))}
    assert {name: line.status for name, line in lines.items()} == {
        "parallel": "FAIL", "a failed episode": "PASS", "a slow episode": "FAIL", "stop and go on": "PASS"
    }  # fmt: skip
    assert "only 1 of 8 episodes were under way at once" in lines["parallel"].detail
    assert "0 of 7 episodes ended while one was held" in lines["a slow episode"].detail


def test_a_recipe_that_plays_one_episode_at_a_time_is_told_so(tmp_path: Path) -> None:
    line = next(check_orchestration(plan_of(tmp_path, agent={"concurrency": 1})))
    assert (line.name, line.status, line.fix) == ("parallel", "SKIPPED", "Raise agent.concurrency.")


def test_a_crash_that_becomes_reward_0_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def generous(rollout: Rollout, **options: Any) -> TrainingRow:
        return TrainingRow(TokenSequence([1], [2], [1], [-0.5]), rollout.reward or 0.0)

    monkeypatch.setattr("gymrail.validation.orchestration.training_row", generous)
    lines = {line.name: line for line in check_orchestration(plan_of(tmp_path))}
    assert lines["a failed episode"].status == "FAIL"
    assert lines["a failed episode"].detail.startswith("its training row has the reward 0.0 and 1 trained tokens")


def test_tasks_that_depend_on_what_was_drawn_before_are_found(tmp_path: Path) -> None:
    class Counting(Echo):
        drawn = 0

        @classmethod
        def generate(cls, rng: Random) -> Number:
            cls.drawn += 1
            return Number.ask(f"Say {cls.drawn}.", number=cls.drawn)

    line = failure(check_orchestration(plan_of(tmp_path, Counting, Press)))
    assert line.name == "stop and go on"
    assert "batch 1 has other tasks: counting:" in line.detail


def test_a_stream_that_forgets_its_place_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gymrail.data.mixture_stream.MixtureStream.restore", functools.partial(lambda *_: None))
    line = failure(check_orchestration(plan_of(tmp_path, mixing={"unit": "tokens"})))
    assert "batch 3 has other tasks" in line.detail
