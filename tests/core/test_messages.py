"""Items and chat messages say the same conversation."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymrail.errors import InputError
from gymrail.messages import TOKEN_FIELDS, chat_tools, from_message, reasoning_item, responses_tools, to_messages
from gymrail.models.model import function_call, message

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
TOKENS = st.fixed_dictionaries(
    {
        "prompt_token_ids": st.lists(st.integers(0, 9)),
        "generation_token_ids": st.lists(st.integers(0, 9)),
        "generation_log_probs": st.just([-0.5]),
    }
)


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One model call as items: reasoning, message, calls, in the order of writing, tokens on the last."""
    items = [reasoning_item(draw(TEXT))] if draw(st.booleans()) else []
    calls = draw(st.lists(st.tuples(TEXT, TEXT), max_size=3))
    if draw(st.booleans()) or not (calls or items):
        items.append(message(draw(TEXT)))
    items += [
        function_call(name, orjson.dumps({"a": value}).decode(), f"c{i}") for i, (name, value) in enumerate(calls)
    ]
    if draw(st.booleans()):
        items[-1].update(draw(TOKENS))
    return items


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = [{"type": "message", "role": "user", "content": draw(TEXT)}]
    for turn in draw(st.lists(turns(), min_size=1, max_size=4)):
        items += turn
        calls = [item for item in turn if item["type"] == "function_call"]
        items += [{"type": "function_call_output", "call_id": item["call_id"], "output": draw(TEXT)} for item in calls]
        if not calls:
            items.append({"type": "message", "role": "user", "content": draw(TEXT)})
    return items


def to_items(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for entry in messages:
        if entry["role"] == "assistant":
            items += from_message(entry)
        elif entry["role"] == "tool":
            items.append({"type": "function_call_output", "call_id": entry["tool_call_id"], "output": entry["content"]})
        else:
            items.append({"type": "message", "role": entry["role"], "content": entry["content"]})
    return items


@settings(max_examples=200, deadline=None)
@given(conversations())
def test_items_survive_the_way_to_messages_and_back(items: list[dict[str, Any]]) -> None:
    before = orjson.dumps(items)
    messages = to_messages(items, keep_tokens=True)
    assert to_items(messages) == items
    assert orjson.dumps(items) == before
    assert to_messages(to_items(messages), keep_tokens=True) == messages
    assert not any(field in entry for entry in to_messages(items) for field in TOKEN_FIELDS)
    objects = to_messages(items, arguments="object", keep_tokens=True)
    assert all(
        isinstance(call["function"]["arguments"], dict) for entry in objects for call in entry.get("tool_calls", ())
    )


def test_a_turn_of_reasoning_text_and_parallel_calls_is_one_message() -> None:
    items = [
        {"role": "developer", "content": "Rules"},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        reasoning_item("hm"),
        message("Calling."),
        function_call("f", '{"x": 1}', "c1"),
        function_call("g", "{", "c2"),
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": "2"},
    ]
    assert to_messages(items, arguments="object", instructions="First.") == [
        {"role": "system", "content": "First."},
        {"role": "system", "content": "Rules"},
        {"role": "user", "content": "ab"},
        {
            "role": "assistant",
            "content": "Calling.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "name": "g", "content": "2"},
    ]


def test_messages_of_two_model_calls_stay_two_and_keep_their_own_reasoning() -> None:
    items = [reasoning_item("r1"), message("one"), reasoning_item("r2"), message("two")]
    texts = [(entry["reasoning_content"], entry["content"]) for entry in to_messages(items)]
    assert texts == [("r1", "one"), ("r2", "two")]


def test_reasoning_between_calls_stays_in_the_turn_so_that_outputs_follow_their_calls() -> None:
    items = [reasoning_item("r1"), function_call("f", "{}", "c1"), reasoning_item("r2"), function_call("g", "{}", "c2")]
    (entry,) = to_messages(items)
    assert entry["reasoning_content"] == "r1\nr2"
    assert [call["id"] for call in entry["tool_calls"]] == ["c1", "c2"]


def test_tokens_close_a_turn_and_go_to_the_last_item_of_their_message() -> None:
    tokens = {"prompt_token_ids": [1], "generation_token_ids": [2], "generation_log_probs": [-1.0]}
    first, second = to_messages([{**message(""), **tokens}, {**message("again"), **tokens}], keep_tokens=True)
    assert (first["content"], second["content"]) == ("", "again")
    items = from_message(
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}],
            **tokens,
        }
    )
    assert [sorted(TOKEN_FIELDS) == sorted(field for field in item if field in TOKEN_FIELDS) for item in items] == [
        False,
        True,
    ]


def test_pictures_become_chat_parts_and_unknown_things_are_refused() -> None:
    picture = {"type": "input_image", "image_url": "data:x"}
    (entry,) = to_messages([{"role": "user", "content": [{"type": "input_text", "text": "see"}, picture]}])
    assert entry["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:x", "detail": "auto"}},
    ]
    assert to_messages([{"role": "user", "content": entry["content"]}]) == [entry]
    with pytest.raises(InputError, match="'input_file' has no chat form"):
        to_messages([{"role": "user", "content": [{"type": "input_file"}, picture]}])
    with pytest.raises(InputError, match="type 'web_search_call'"):
        to_messages([{"type": "web_search_call", "id": "w"}])


def test_an_empty_answer_and_a_refusal_are_messages() -> None:
    assert from_message({"role": "assistant", "content": None}) == [message("")]
    assert from_message({"role": "assistant", "content": None, "refusal": "No."}) == [message("No.")]
    assert from_message({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": None}]}) == [message("a")]


def test_tools_are_rewritten_both_ways() -> None:
    responses = {"type": "function", "name": "f", "description": "F.", "parameters": {"type": "object"}, "strict": True}
    chat = {
        "type": "function",
        "function": {"name": "f", "description": "F.", "parameters": {"type": "object"}, "strict": True},
    }
    assert chat_tools([responses]) == chat_tools([chat]) == [chat]
    assert responses_tools([chat]) == responses_tools([responses]) == [responses]
