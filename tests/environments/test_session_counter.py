"""session_counter: the final value counts, whatever was said."""

import asyncio

import pytest

from gymrail import Rollout, call
from gymrail.environment import Turn
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.session_counter.environment import SessionCounterTask

SPEC = find("session_counter")
TASK = SessionCounterTask.ask("Make it 10.", initial_count=3, expected_count=10)


def played(*turns: Turn) -> Rollout:
    rollout = asyncio.run(play(SPEC, TASK, ScriptedModel(turns)))
    assert rollout.failure is None
    return rollout


@pytest.mark.parametrize("counts", [[7], [3, 4], [10, -3], [0, 7, 0]])
def test_any_way_to_the_expected_value_earns_one(counts: list[int]) -> None:
    assert played(*(call("increment_counter", count=count) for count in counts), "Done.").reward == 1.0


def test_claiming_the_value_without_counting_earns_nothing() -> None:
    rollout = played("The counter shows 10.")
    assert (rollout.reward, rollout.verdict_reason) == (0.0, "the counter shows 3, not 10")


def test_calls_of_one_turn_all_count() -> None:
    assert played([call("increment_counter", count=3), call("increment_counter", count=4)], "Done.").reward == 1.0


def test_a_refused_call_changes_nothing() -> None:
    rollout = played(call("increment_counter", count="many"), call("get_counter_value"), "Done.")
    assert rollout.calls[0].is_error
    assert rollout.calls[1].output == "3"


def test_the_hidden_value_is_not_in_the_prompt_alone() -> None:
    assert "initial_count" not in str(TASK.responses_create_params)
