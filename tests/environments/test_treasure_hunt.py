"""treasure_hunt: two calls, in order, for the right chest, with the key that was found."""

import asyncio

import pytest

from gymrail import Rollout, call
from gymrail.environment import Turn
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.treasure_hunt.environment import TreasureHuntTask

SPEC = find("treasure_hunt")
TASK = TreasureHuntTask.ask(
    'Open the "red" chest, not the "blue" one.', color="red", decoy="blue", key=47, decoy_key=81
)
FIND_RED, OPEN_RED = call("find_key", color="red"), call("open_chest", color="red", key=47)


def played(*turns: Turn) -> Rollout:
    rollout = asyncio.run(play(SPEC, TASK, ScriptedModel(turns)))
    assert rollout.failure is None
    return rollout


def test_finding_the_key_and_opening_the_chest_earns_one_and_ends_the_episode() -> None:
    rollout = played(FIND_RED, OPEN_RED)
    assert (rollout.reward, rollout.steps, rollout.metrics["found_right_key"]) == (1.0, 2, True)
    assert [one.output for one in rollout.calls] == ["47", "It opens."]


@pytest.mark.parametrize(
    "turns",
    [
        (OPEN_RED, FIND_RED),
        (FIND_RED, call("open_chest", color="red", key=74)),
        (FIND_RED, call("open_chest", color="blue", key=81)),
        (FIND_RED, call("open_chest", color="blue", key=47)),
        (call("find_key", color="blue"), call("open_chest", color="blue", key=81)),
        (call("find_key", color="blue"), OPEN_RED),
        (FIND_RED, FIND_RED),
        ([FIND_RED, OPEN_RED, OPEN_RED],),
        (OPEN_RED, "Done."),
        ("It opens.",),
    ],
)
def test_everything_else_earns_nothing(turns: tuple[Turn, ...]) -> None:
    assert played(*turns).reward == 0.0


def test_a_chest_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    rollout = played(call("find_key", color="green"), OPEN_RED)
    assert rollout.calls[0].output == "There is no green chest; there are: blue, red."
    assert rollout.reward == 0.0


def test_the_key_is_told_by_the_tool_alone() -> None:
    for index in range(100):
        task = SPEC.generate("train", index)
        assert str(task.key) not in task.responses_create_params["input"]
        assert task.key != task.decoy_key


def test_the_noisy_teacher_makes_both_kinds_of_mistakes() -> None:
    async def rollouts() -> list[Rollout]:
        return [
            await play(SPEC, SPEC.generate("train", index), Oracle(noise=0.4), task_index=index) for index in range(200)
        ]

    found = asyncio.run(rollouts())
    assert 0.25 < sum(rollout.reward or 0.0 for rollout in found) / len(found) < 0.5
    wrong_keys = [rollout for rollout in found if rollout.metrics.get("found_right_key") and not rollout.reward]
    wrong_chests = [rollout for rollout in found if rollout.metrics.get("found_right_key") is False]
    assert len(wrong_keys) > 20
    assert len(wrong_chests) > 20
