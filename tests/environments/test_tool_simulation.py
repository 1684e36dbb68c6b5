"""Tools that exist in the row alone, played from records or by a model; whose fault a failure is."""

import asyncio
from typing import Any

import orjson
import pytest

from gymrail.environment import call
from gymrail.errors import ModelError
from gymrail.models.model import ModelRequest
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task
from tests.core.users.players import Player

SPEC = find("tool_simulation")
SCENARIO = {
    "customer_persona": "A student.", "reason_for_contact": "You want to reserve Emma.",
    "customer_details": "Card L-1.", "unknown_info": "The book's id.", "task_instructions": "End when it is reserved.",
}  # fmt: skip
ROW: dict[str, Any] = {
    "responses_create_params": {"input": "I want to reserve Emma."},
    "policy": "Ask for the card first.",
    "tools": [
        {"type": "function", "name": "find", "description": "Find a book.",
         "parameters": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}},
        {"type": "function", "function": {"name": "reserve", "description": "Reserve.",
         "parameters": {"type": "object", "properties": {"book": {"type": "string"}}, "required": ["book"]}}},
        {"type": "function", "name": "hand_over", "description": "Transfer.",
         "parameters": {"type": "object", "properties": {}}},
    ],
    "customer_scenario": SCENARIO,
    "records": [{"name": "find", "arguments": {"title": "Emma"}, "output": {"id": "b1"}},
                {"name": "reserve", "output": "queued"}, {"name": "hand_over", "output": "bye"}],
    "expected_calls": [{"name": "reserve", "arguments": {"book": "b1"}}],
    "free_tools": ["find"], "end_tools": ["hand_over"], "must_tell": ["queued"], "must_not_tell": ["LIMIT"],
}  # fmt: skip


def task(**changed: Any) -> Task:
    return SPEC.cls.task_type.from_row({**ROW, **changed})


def played(asked: Task, turns: Any, spec: EnvironmentSpec = SPEC) -> Rollout:
    return asyncio.run(play(spec, asked, turns if isinstance(turns, Oracle) else ScriptedModel(turns)))


FIND, RESERVE = call("find", title="Emma"), call("reserve", book="b1")


def test_the_rows_tools_are_offered_and_answer_from_its_records() -> None:
    rollout = played(task(), [FIND, RESERVE, "You are queued."])
    assert [each.output for each in rollout.calls] == ['{"id":"b1"}', "queued"]
    assert (rollout.reward, rollout.verdict_reason) == (1, None)
    assert [tool["name"] for tool in rollout.task.offered_tools or () if "name" in tool] == ["find", "hand_over"]
    assert rollout.task.id == task().id


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (["You are queued."], 'the call reserve({"book":"b1"}) was not made'),
        ([RESERVE, RESERVE, "You are queued."], 'the call reserve({"book":"b1"}) was not expected'),
        ([RESERVE, "Done."], "the customer was not told 'queued'"),
        ([RESERVE, "You are queued, no LIMIT."], "the customer was told 'LIMIT'"),
        ([call("reserve", book="b2"), "You are queued."], 'the call reserve({"book":"b1"}) was not made'),
    ],
)
def test_what_is_missing_or_too_much_earns_nothing_and_is_said(turns: Any, reason: str) -> None:
    rollout = played(task(), turns)
    assert rollout.reward == 0
    assert rollout.verdict_reason is not None
    assert reason in rollout.verdict_reason


def test_calls_that_do_not_fit_are_refused_and_do_not_count() -> None:
    turns = [call("reserve", id="b1"), call("find", title="Ulysses"), call("reserve"), RESERVE, "You are queued."]
    rollout = played(task(), turns)
    assert rollout.reward == 1
    assert [each.output for each in rollout.calls][:3] == [
        "Invalid arguments for tool 'reserve': unknown id. Expected: book.",
        'find found nothing for {"title":"Ulysses"}.',
        "Invalid arguments for tool 'reserve': missing book. Expected: book.",
    ]


def test_an_end_tool_ends_the_talk() -> None:
    rollout = played(
        task(expected_calls=[{"name": "hand_over", "arguments": {}}], must_tell=[]), [call("hand_over"), "No."]
    )
    assert (rollout.reward, rollout.steps) == (1, 1)


def test_an_agent_that_never_comes_to_an_end_is_at_fault_itself() -> None:
    rollout = played(
        task(expected_calls=[], must_tell=[], user={"patience": 40}), lambda request: "One moment, please."
    )
    assert rollout.outcome is not None
    assert (rollout.outcome.status, rollout.reward) == ("truncated", 0)
    assert rollout.verdict_reason == "the talk has not come to its end"


def with_models(monkeypatch: pytest.MonkeyPatch, models: dict[str, object], **config: Any) -> EnvironmentSpec:
    """The environment with players and judges in place of what their settings would build, by the model's name."""
    monkeypatch.setattr("gymrail.models.settings.ModelSettings.build", lambda self: models[self.model_name])
    named = {part: {"model": "http://localhost:1/v1", "model_name": part} for part in models}
    return SPEC.with_config({**named, **config})


def back_office(request: ModelRequest) -> str:
    asked = request.input[-1]["content"]
    return '{"output": {"id": "b1"}}' if '"find"' in asked else '{"output": "queued"}'


def test_a_model_can_play_the_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player(back_office)
    spec = with_models(monkeypatch, {"tools": player})
    rollout = played(task(records=[]), [FIND, RESERVE, "You are queued."], spec)
    assert rollout.reward == 1
    assert "Card L-1." in player.requests[0].input[0]["content"]


def down(request: ModelRequest) -> str:
    raise ModelError("503")


@pytest.mark.parametrize("said", [down, lambda request: "I found it!"])
def test_a_tool_player_at_fault_fails_the_rollout_and_gives_no_reward(
    monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    rollout = played(task(), [FIND, RESERVE, "queued"], with_models(monkeypatch, {"tools": Player(said)}))
    assert rollout.reward is None
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage) == ("infrastructure", "tool")


def test_a_user_player_that_tells_what_no_customer_knows_fails_the_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = with_models(monkeypatch, {"user": Player(["It is the book b1."])})
    rollout = played(task(hidden=["b1"]), ["Which book?"], spec)
    assert rollout.reward is None
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage) == ("infrastructure", "reply")
    assert "does not know" in rollout.failure.message


def judged(monkeypatch: pytest.MonkeyPatch, judge: Player) -> Rollout:
    spec = with_models(monkeypatch, {"judge": judge})
    return played(task(expected_calls=None), [FIND, RESERVE, "You are queued."], spec)


def test_a_row_without_expected_calls_is_judged_with_policy_case_and_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Player(["Fine. [[pass]]"])
    assert judged(monkeypatch, judge).reward == 1
    asked = judge.requests[0].input[-1]["content"]
    for part in (
        "Ask for the card first.",
        "End when it is reserved.",
        'agent calls reserve: {"book":"b1"}',
        "tool answers: queued",
    ):
        assert part in asked
    assert judged(monkeypatch, Player(["[[fail]]"])).reward == 0


@pytest.mark.parametrize("said", [down, lambda request: "Hm."])
def test_a_judge_at_fault_fails_the_rollout(monkeypatch: pytest.MonkeyPatch, said: Any) -> None:
    rollout = judged(monkeypatch, Player(said))
    assert rollout.reward is None
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage) == ("verifier", "verify")


def test_a_row_that_nobody_can_judge_is_refused_at_once() -> None:
    rollout = played(task(expected_calls=None), ["Hello."])
    assert rollout.failure is not None
    assert "name a judge" in rollout.failure.message


def test_generated_tasks_hold_the_card_and_the_ids_back() -> None:
    for each in SPEC.tasks("train", limit=50):
        row = each.row
        shown = orjson.dumps(row["responses_create_params"]).decode()
        held_back = [row["records"][0]["arguments"]["card"], *row["hidden"]]
        assert len(held_back) >= 2
        assert not [value for value in held_back if value in shown]
