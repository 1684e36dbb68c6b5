# ruff: noqa: RUF001
# DeepSeek writes its control tokens with a bar that looks like another one.
"""Calls read from a model's own words, where ids or fences matter; the families' episodes read the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gymrail.models.tool_parsing import Format, detect_format, parse_turn

CALL = "<｜tool▁call▁begin｜>"
SEPARATOR = "<｜tool▁sep｜>"
CALL_END = "<｜tool▁call▁end｜>"


def calls_in(text: str, style: Format) -> list[tuple[str, str]]:
    return [(item["name"], item["arguments"]) for item in parse_turn(text, style) if item["type"] == "function_call"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{CALL}function{SEPARATOR}press\n```json\n{{"a": 1}}\n```{CALL_END}', [("press", '{"a": 1}')]),
        (f'{CALL}press{SEPARATOR}{{"a": 1}}{CALL_END}', [("press", '{"a": 1}')]),
        (f"{CALL}press{SEPARATOR}{{}}{CALL_END}{CALL}lift{SEPARATOR}{{}}{CALL_END}", [("press", "{}"), ("lift", "{}")]),
        # Broken JSON and a missing end stay a call: the model is told, and learns.
        (f'{CALL}press{SEPARATOR}{{"a": ', [("press", '{"a":')]),
        (f"{CALL}function{SEPARATOR}press\n```json\n{{broken", [("press", "{broken")]),
    ],
)
def test_deepseek_writes_calls_with_and_without_a_fence(text: str, expected: Any) -> None:
    closing = "<｜tool▁calls▁end｜>" if text.endswith(CALL_END) else ""
    turn = f"I look.<｜tool▁calls▁begin｜>{text}{closing}"
    assert calls_in(turn, "deepseek") == expected
    assert parse_turn(turn, "deepseek")[0]["content"][0]["text"] == "I look."


def test_deepseek_text_without_calls_stays_text() -> None:
    (item,) = parse_turn("<｜tool▁calls▁begin｜>nothing", "deepseek")
    assert item["content"][0]["text"] == "<｜tool▁calls▁begin｜>nothing"


@pytest.mark.parametrize(
    "text",
    [
        '[TOOL_CALLS][{"name": "press", "arguments": {"a": 1}, "id": "abcDEF123"}]',
        '[TOOL_CALLS]press[CALL_ID]abcDEF123[ARGS]{"a":1}',
    ],
)
def test_mistral_s_own_call_id_is_kept(text: str) -> None:
    (call,) = parse_turn(text, "mistral")
    assert (call["name"], call["arguments"], call["call_id"]) == ("press", '{"a":1}', "abcDEF123")


@pytest.mark.parametrize("written", ['"short"', '"has-a-dash"', "7", "null"])
def test_a_call_id_that_mistral_s_template_refuses_is_replaced(written: str) -> None:
    (call,) = parse_turn(f'[TOOL_CALLS][{{"name": "press", "arguments": {{}}, "id": {written}}}]', "mistral")
    assert len(call["call_id"]) == 9
    assert call["call_id"].isalnum()


XML = """I look.
<tool_call>
<function=press>
<parameter=digit>
4
</parameter>
<parameter=label>
4
</parameter>
<parameter=note>
two
lines
</parameter>
<parameter=firmly>
True
</parameter>
<parameter=keys>
["a", 1]
</parameter>
</function>
</tool_call>"""
PRESS = {
    "type": "function",
    "name": "press",
    "parameters": {"properties": {"digit": {"type": "integer"}, "label": {"type": "string"}}},
}


def test_xml_values_are_texts_where_the_schema_says_so_and_json_elsewhere() -> None:
    said, call = parse_turn(XML, "xml", [PRESS])
    assert said["content"][0]["text"] == "I look."
    assert call["name"] == "press"
    assert json.loads(call["arguments"]) == {
        "digit": 4, "label": "4", "note": "two\nlines", "firmly": True, "keys": ["a", 1],
    }  # fmt: skip


def test_xml_that_was_cut_off_is_still_a_call() -> None:
    assert calls_in("<tool_call>\n<function=press>\n<parameter=digit>\n4", "xml") == [("press", '{"digit":4}')]
    assert calls_in("<tool_call>\n<function=press>\n</function>\n</tool_call>", "xml") == [("press", "{}")]
    assert calls_in('<tool_call>{"name": "press"}</tool_call>', "xml") == []


def test_the_form_is_read_from_the_template() -> None:
    assert detect_format("{{ '<tool_call><function=' }}") == "xml"
    assert detect_format("{{ '<tool_call>' }}") == "hermes"
    assert detect_format("{{ '<｜tool▁call▁begin｜>' }}") == "deepseek"
    assert detect_format("{{ '[TOOL_CALLS]' }}") == "mistral"
    assert detect_format("{{ messages }}") == "none"
