"""follow_ups: every answer draws the next turn; the last answer is graded and hedging does not pay."""

import asyncio

import pytest

from gymrail import GymrailError, Rollout
from gymrail.agents.tool_loop import ToolLoop
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.follow_ups.environment import FollowUpsTask

SPEC = find("follow_ups")
TASK = FollowUpsTask.ask("I think of 7.", follow_ups=["I add 5.", "What now?"], expected_answer="12")


def played(*turns: str, agent: ToolLoop | None = None) -> Rollout:
    rollout = asyncio.run(play(SPEC, TASK, ScriptedModel(turns), agent=agent or ToolLoop()))
    assert rollout.failure is None
    return rollout


def test_each_answer_draws_the_next_follow_up_and_the_last_is_graded() -> None:
    rollout = played("Ok.", "Ok.", "12")
    users = [item["content"] for item in rollout.items if item.get("role") == "user"]
    assert users == ["I add 5.", "What now?"]
    assert (rollout.reward, rollout.metrics["follow_ups_put"]) == (1.0, 2)


def test_an_earlier_right_answer_does_not_count() -> None:
    assert played("12", "12", "13").reward == 0.0


@pytest.mark.parametrize("answer", ["112", "12 or 13", "-12", "", "12 minus 1"])
def test_an_answer_that_hedges_or_resembles_earns_nothing(answer: str) -> None:
    assert played("Ok.", "Ok.", answer).reward == 0.0


@pytest.mark.parametrize("answer", ["12.", "You have 12 now.", r"7 + 5 = \boxed{12}", "7 + 5\nAnswer: 12"])
def test_the_right_number_may_come_in_a_sentence(answer: str) -> None:
    assert played("Ok.", "Ok.", answer).reward == 1.0


def test_a_talk_cut_off_before_the_last_follow_up_earns_nothing() -> None:
    rollout = played("12", "12", "12", agent=ToolLoop(max_steps=1))
    assert rollout.outcome is not None
    assert (rollout.outcome.status, rollout.reward) == ("truncated", 0.0)


def test_a_talk_cut_off_before_the_last_answer_earns_nothing() -> None:
    rollout = played("12", "12", "12", agent=ToolLoop(max_steps=2))
    assert rollout.outcome is not None
    assert (rollout.outcome.status, rollout.reward, rollout.metrics["follow_ups_put"]) == ("truncated", 0.0, 2)


def test_a_row_without_follow_ups_is_refused() -> None:
    with pytest.raises(GymrailError, match="follow_ups"):
        FollowUpsTask.from_row({"responses_create_params": {"input": "x"}, "follow_ups": [], "expected_answer": "y"})
