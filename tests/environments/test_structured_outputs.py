"""structured_outputs: text and tool calls, expected values, bad rows, and what its generator makes."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from gymrail import GymrailError, Rollout, Task, call
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find

SPEC = find("structured_outputs")
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "name": "submit", "description": "Hand in.", "parameters": SCHEMA, "strict": True}


def task(**fields: Any) -> Task:
    parameters = {"tools": [TOOL, {**TOOL, "name": "other"}]} if fields.get("response_mode") == "tool_call" else {}
    return SPEC.cls.task_type.ask("Give a.", parameters=parameters, schema_str=json.dumps(SCHEMA), **fields)


def played(*turns: Any, asked: Task, **settings: Any) -> Rollout:
    rollout = asyncio.run(play(SPEC.with_config(settings), asked, ScriptedModel(list(turns))))
    assert rollout.failure is None
    return rollout


def test_text_is_judged_by_the_schema_and_the_expected_values() -> None:
    assert played('{"a": 1}', asked=task()).reward == 1.0
    assert played('{"a": 1}', asked=task(expected_values={"a": 2})).reward == 0.0
    assert played("a: 1", asked=task(schema_type="yaml")).reward == 1.0
    assert played('```json\n{"a": 1}\n```', asked=task()).reward == 0.0
    assert played('```json\n{"a": 1}\n```', asked=task(), allow_fence=True).reward == 1.0


def test_the_first_call_of_the_rows_own_tool_ends_the_episode() -> None:
    asked = task(response_mode="tool_call", tool_name="submit")
    rollout = played(call("submit", a=1), "never said", asked=asked)
    assert (rollout.reward, rollout.steps) == (1.0, 1)
    assert played(call("other", a=1), asked=asked).verdict_reason == "'other' was called, not 'submit'"
    assert played([call("submit", a=1), call("submit", a=1)], asked=asked).verdict_reason == "2 tool calls, not one"
    assert played('{"a": 1}', asked=asked).verdict_reason == "0 tool calls, not one"
    assert played(call("other", a=1), asked=task(response_mode="tool_call")).reward == 1.0


def test_the_payload_key_names_the_argument_that_counts() -> None:
    asked = task(response_mode="tool_call", tool_name="submit", tool_payload_key="result")
    assert played(call("submit", result={"a": 1}), asked=asked).reward == 1.0
    assert played(call("submit", a=1), asked=asked).verdict_reason == "the argument 'result' is missing"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema_str": "{"}, "must be the JSON of a schema"),
        ({"schema_str": '{"type": "thing"}'}, "no valid JSON Schema"),
        ({"schema_type": "ini"}, "schema_type"),
        ({"response_mode": "voice"}, "response_mode"),
    ],
)
def test_a_bad_row_is_refused_with_its_place_and_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(GymrailError, match=r"rows\.jsonl, line 3: ") as error:
        SPEC.cls.task_type.from_row({**task().row, **fields}, "rows.jsonl, line 3")
    assert message in str(error.value)


def test_the_generator_makes_every_format_and_tools_and_says_every_value() -> None:
    kinds: Counter[str] = Counter()
    for index in range(300):
        made: Any = SPEC.generate("train", index)
        kinds[made.schema_type if made.response_mode == "text" else "tool"] += 1
        prompt = json.dumps(made.responses_create_params["input"])
        for value in leaves(made.expected_values):
            assert value is None or isinstance(value, bool) or str(value) in prompt
    assert set(kinds) == {"json", "yaml", "xml", "toml", "csv", "tool"}
    assert min(kinds.values()) > 15


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inside in value.values() for leaf in leaves(inside)]
    return [leaf for inside in value for leaf in leaves(inside)] if isinstance(value, list) else [value]
