"""The chests of `aviary`: what pays, what breaks them, and other data sets in their place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gymrail.environment import call
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail.task import Task
from gymrail_environments.aviary.locks import LockDataset, LockEnv

CHEST = LockEnv(3)


def played(*script: Any) -> Rollout:
    spec = find("aviary")
    task = spec.cls.task_type.from_row({"task_idx": 3, "responses_create_params": {"input": []}})
    return asyncio.run(play(spec, task, ScriptedModel([*script, "I stop."])))


def opening(color: str, *, off_by: int = 0) -> Any:
    return call("open_lock", color=color, code=CHEST.codes[color] + off_by)


def test_each_lock_pays_when_it_opens_and_the_last_one_ends_the_episode() -> None:
    one, two, three = CHEST.colors
    rollout = played(opening(one), opening(one), opening(three), opening(two))
    assert [call.output for call in rollout.calls] == [
        "The lock opens.", "That lock is open.", "The lock opens.", "The chest is open.",
    ]  # fmt: skip
    assert (rollout.reward, rollout.metrics["finished"], rollout.steps) == (1.0, True, 4)


def test_the_third_wrong_code_breaks_the_chest_and_keeps_what_was_earned() -> None:
    one, two, _ = CHEST.colors
    rollout = played(opening(one), *[opening(two, off_by=wrong) for wrong in (1, 2, 3)])
    assert (rollout.reward, rollout.metrics["finished"]) == (0.25, True)
    assert rollout.calls[-1].output == "Wrong code, and the chest breaks."


def test_a_lock_that_is_not_there_costs_nothing() -> None:
    rollout = played(call("read_note", color="pink"), call("open_lock", color="pink", code=1), opening(CHEST.colors[0]))
    assert [call.output for call in rollout.calls[:2]] == ["There is no pink lock."] * 2
    assert rollout.calls[2].output == "The lock opens."


def test_every_chest_is_another_and_equal_on_every_machine() -> None:
    chests = [LockEnv(number) for number in range(500)]
    assert len({tuple(chest.notes.values()) for chest in chests}) == 500
    assert CHEST.codes == {"red": 192, "black": 286, "grey": 190}
    assert all(code > 0 for chest in chests for code in chest.codes.values())


def test_rows_of_the_public_format_play_with_the_oracle() -> None:
    spec = find("aviary")
    tasks = list(spec.tasks("example"))
    assert tasks[0].row == {"task_idx": 2, "responses_create_params": {"input": []}}
    rollouts = [asyncio.run(play(spec, task, Oracle())) for task in tasks]
    assert [rollout.reward for rollout in rollouts] == [1.0] * 5


def test_another_data_set_is_a_setting() -> None:
    spec = find("aviary").with_config({"dataset": "dummy"})
    (task,) = spec.tasks("train", limit=1)
    rollout = asyncio.run(play(spec, task, ScriptedModel([call("print_story", story="a b c d e")])))
    assert rollout.reward == 1.0
    unsolved = asyncio.run(play(spec, task, Oracle()))
    assert unsolved.failure is not None
    assert "gold policy for the chests alone" in unsolved.failure.message


@pytest.mark.parametrize("number", [-1, 20_000])
def test_a_number_beyond_the_data_set_is_a_failure(number: int) -> None:
    spec = find("aviary")
    task = Task.from_row({"task_idx": number, "responses_create_params": {"input": []}})
    rollout = asyncio.run(play(spec, spec.cls.task_type.from_row(task.row), ScriptedModel(["x"])))
    assert rollout.failure is not None
    assert f"task_idx is {number}" in rollout.failure.message


def test_the_data_set_runs_in_aviary_alone() -> None:
    async def run() -> float:
        environment = LockDataset().get_new_env_by_idx(3)
        messages, tools = await environment.reset()
        assert [tool.info.name for tool in tools] == ["read_note", "open_lock"]
        return len(messages)

    assert asyncio.run(run()) == 1
