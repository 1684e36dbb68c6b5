"""Rollouts: the record as a JSON line, ours and NeMo Gym's."""

from typing import Any

import orjson
import pytest

from gymrail import Outcome, Rollout, Task
from gymrail.errors import FAILURE_KINDS, Failure
from gymrail.messages import reasoning_item
from gymrail.models.model import function_call, message
from gymrail.rollout import Timing, ToolCall, Usage, agent_ref


class Typed(Task):
    expected: int


TOKENS = {"prompt_token_ids": [1, 2, 3], "generation_token_ids": [4, 5], "generation_log_probs": [-0.5, -1e-9]}
TASK = Typed.from_row({"responses_create_params": {"input": "Go", "tools": []}, "expected": 7, "note": {"a": [None]}})


def rollout_of(outcome: Outcome, reward: float | None, task: Task = TASK) -> Rollout:
    prompt = task.input_items
    items = [
        reasoning_item("hm"),
        {**function_call("add", '{"by": 1}', "c1"), **TOKENS},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "1"}]},
        {**message("Seven"), **TOKENS},
    ]
    return Rollout(
        "adder", task, "r1", 4, 2, 3, [*prompt, *items], len(prompt),
        [ToolCall("c1", "add", '{"by": 1}', [{"type": "input_text", "text": "1"}], False, 0.25),
         ToolCall("c2", "x", "{", "no", True)],
        outcome, reward, {"a": 0.25, "b": 0.5} if reward is not None else {}, {"n": 1, "why": None, "ok": True},
        "because", [0.1, -1.0], 2,
        Usage(30, 4), Timing(1700000000.5, 4.0, 3.0, 0.25, 0.125), "tiny",
    )  # fmt: skip


OUTCOMES = [
    (Outcome("scored"), 0.75),
    (Outcome("truncated", reason="max_steps"), 0.75),
    (Outcome("truncated", reason="context"), 0.0),
    (Outcome("cancelled"), None),
    *((Outcome("failed", Failure(kind, "verify", "text", "trace")), None) for kind in FAILURE_KINDS),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("outcome", "reward"), OUTCOMES, ids=lambda value: str(value)[:40])
def test_a_rollout_comes_back_whole_from_its_json_line(outcome: Outcome, reward: float | None) -> None:
    rollout = rollout_of(outcome, reward)
    back = Rollout.from_row(orjson.loads(orjson.dumps(rollout.to_row())), Typed)
    assert back == rollout
    assert back.task.row == TASK.row
    assert back.task.id == TASK.id
    assert back.to_row() == rollout.to_row()


def test_fields_of_the_task_that_a_record_has_too_come_back_from_it() -> None:
    task = Task.from_row(
        {"responses_create_params": {"input": "Go"}, "reward": 5, "response": {"old": 1}, "_ng_task_index": 9}
    )
    rollout = rollout_of(Outcome("scored"), 0.75, task)
    row = orjson.loads(orjson.dumps(rollout.to_row()))
    assert (row["reward"], row["_ng_task_index"], row["response"]["object"]) == (0.75, 4, "response")
    back = Rollout.from_row(row)
    assert back == rollout
    assert back.task.row == task.row
    assert back.task.id == task.id


def test_the_line_is_nemo_gyms_verify_response() -> None:
    row = rollout_of(Outcome("scored"), 0.75).to_row()
    assert row["expected"] == 7
    assert row["reward"] == 0.75
    assert (row["_ng_task_index"], row["_ng_rollout_index"]) == (4, 2)
    assert row["response"]["output"][-1]["generation_token_ids"] == [4, 5]
    assert row["response"]["usage"]["total_tokens"] == 34


NEMO_ROW: dict[str, Any] = {
    "responses_create_params": {"input": [{"role": "user", "content": "Go"}]},
    "expected": 7,
    "agent_ref": {"type": "responses_api_agents", "name": "adder_agent"},
    "response": {
        "id": "resp_9",
        "created_at": 5.0,
        "model": "m",
        "output": [
            function_call("add", '{"by": 1}', "c1"),
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            message("7"),
        ],
        "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    },
    "reward": 1.0,
    "_ng_task_index": 4,
    "_ng_rollout_index": 2,
}


def test_a_row_of_nemo_gym_without_our_fields_is_read() -> None:
    rollout = Rollout.from_row(NEMO_ROW, Typed)
    assert (rollout.environment, rollout.id, rollout.task_index, rollout.repeat, rollout.model) == (
        "adder_agent",
        "resp_9",
        4,
        2,
        "m",
    )
    assert (rollout.outcome, rollout.reward, rollout.final_text, rollout.usage) == (
        Outcome("scored"),
        1.0,
        "7",
        Usage(3, 4),
    )
    assert rollout.calls == [ToolCall("c1", "add", '{"by": 1}', "1")]
    assert rollout.prompt_length == 1


def test_a_row_of_nemo_gym_without_a_reward_is_failed_and_not_zero() -> None:
    row = {key: value for key, value in NEMO_ROW.items() if key != "reward"}
    rollout = Rollout.from_row({**row, "_ng_failure_class": "timeout"}, Typed)
    assert (rollout.outcome, rollout.reward) == (
        Outcome("failed", Failure("infrastructure", "verify", "timeout")),
        None,
    )


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], ""),
        ([message("a"), message("b")], "b"),
        ([message("a"), function_call("f", "{}", "c")], "a"),
        ([message("a"), {"role": "user", "content": "more"}], "a"),
        ([{"role": "assistant", "content": "plain"}], "plain"),
        (
            [
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "x"}, {"type": "output_text", "text": "y"}],
                }
            ],
            "xy",
        ),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant", "content": [{"type": "refusal", "refusal": "no", "text": None}]}], ""),
        ([reasoning_item("only")], ""),
    ],
)
def test_the_final_text_is_the_last_assistant_message_of_the_episode(items: list[Any], text: str) -> None:
    prompt = [{"role": "assistant", "content": "from the prompt"}, {"role": "user", "content": "Go"}]
    rollout = Rollout("e", Task.ask(prompt), "r", conversation=[*prompt, *items], prompt_length=2)
    assert rollout.final_text == text


def test_a_calls_arguments_are_an_object_or_nothing() -> None:
    assert [ToolCall("c", "f", text).parsed for text in ('{"a": 1}', "[1]", "{", "")] == [{"a": 1}, {}, {}, {}]


@pytest.mark.parametrize("named", [{}, {"agent_ref": agent_ref("adder")}, {"agent_ref": {"name": "other"}}])
def test_a_task_that_names_its_agent_itself_is_read_back_as_it_was(named: dict[str, Any]) -> None:
    task = Task.from_row({"responses_create_params": {"input": "1 + 1?"}, **named})
    row = Rollout("adder", task, "id", 0, 0, outcome=Outcome("scored"), reward=1.0).to_row()
    assert row["agent_ref"] == named.get("agent_ref", agent_ref("adder"))
    assert Rollout.from_row(row).task.row == task.row
