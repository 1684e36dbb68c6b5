"""Responses items and Chat Completions messages: the same conversation, written two ways.

One assistant turn is several items (reasoning, message, function calls) but one message. `to_messages` joins them,
`from_message` takes one apart, and a round trip gives back the same conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import orjson

from gymrail.errors import InputError, did_you_mean
from gymrail.models.model import function_call, message
from gymrail.rollout import text_of
from gymrail.task import Item

Message = dict[str, Any]
_ITEM_TYPES = ("message", "function_call", "function_call_output", "reasoning")
TOKEN_FIELDS = ("prompt_token_ids", "generation_token_ids", "generation_log_probs")
"""NeMo Gym's training fields; they stand on the last item of a model call, and on the assistant message of a chat
completion."""
_NO_TOKENS = frozenset(TOKEN_FIELDS).isdisjoint


def to_messages(
    items: Sequence[Item],
    *,
    arguments: Literal["text", "object"] = "text",
    keep_tokens: bool = False,
    instructions: str | None = None,
) -> list[Message]:
    """Return the conversation as chat messages.

    Args:
        items: Responses items.
        arguments: "text" for an API, "object" for chat templates, which write JSON in their own way.
        keep_tokens: carry the token fields on the assistant messages.
        instructions: Responses `instructions`; they become the first system message.
    """
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    turn: Message | None = None
    is_closed = False
    names: dict[str, str] = {}
    for item in items:
        kind = item.get("type") or "message"
        if kind == "function_call_output":  # first, and without a further call: this runs for every item of every step
            turn = None
            call_id, output = item["call_id"], item.get("output", "")
            content = output if output.__class__ is str else _content(output)
            answer = {"role": "tool", "tool_call_id": call_id, "content": content}
            if call_id in names:
                answer["name"] = names[call_id]
            messages.append(answer)
            continue
        role = item.get("role")
        if role == "assistant" or kind == "function_call" or kind == "reasoning":
            # Two model calls in a row (a retried answer) stay two messages: the first call's token fields close its
            # turn. Reasoning or a message after a message begins one too; after calls it does not, because their
            # outputs must follow the calls.
            again = (
                turn is not None
                and turn["content"]
                and (role == "assistant" or (kind == "reasoning" and "tool_calls" not in turn))
            )
            if turn is None or again or is_closed:
                turn = {"role": "assistant", "content": ""}
                messages.append(turn)
            _extend_turn(turn, item, kind, arguments)
            if kind == "function_call":
                names[item["call_id"]] = item["name"]
            is_closed = not _NO_TOKENS(item)
            if is_closed and keep_tokens:
                turn.update((field, item[field]) for field in TOKEN_FIELDS if field in item)
            continue
        turn = None
        if kind != "message" or role is None:
            raise InputError(
                f"An item of type {kind!r} (role {role!r}) has no chat form. {did_you_mean(kind, _ITEM_TYPES)}"
            )
        messages.append(
            {"role": "system" if role == "developer" else role, "content": _content(item.get("content", ""))}
        )
    return messages


def from_message(reply: Mapping[str, Any]) -> list[Item]:
    """Take an assistant message apart: reasoning, message, function calls; token fields go to the last item."""
    items: list[Item] = []
    reasoning = reply.get("reasoning_content") or reply.get("reasoning")
    if reasoning:
        items.append(reasoning_item(str(reasoning)))
    content = reply.get("content")
    text = content if isinstance(content, str) else text_of({"content": content}) if content else ""
    text = text or str(reply.get("refusal") or "")
    calls = reply.get("tool_calls") or ()
    if text or not (calls or items):
        items.append(message(text))
    for index, call in enumerate(calls):
        function = call.get("function") or {}
        written = function.get("arguments")
        arguments = written if isinstance(written, str) else orjson.dumps(written or {}).decode()
        items.append(function_call(str(function.get("name", "")), arguments, call.get("id") or f"call_{index}"))
    for field in TOKEN_FIELDS:
        if reply.get(field) is not None:
            items[-1][field] = reply[field]
    return items


def reasoning_item(text: str) -> Item:
    """Build a reasoning item from a model's own words."""
    return {"type": "reasoning", "id": "rs_0", "summary": [{"type": "summary_text", "text": text}]}


def reasoning_text(item: Item) -> str:
    """Return the words of a reasoning item: its content where the model shows it, its summary otherwise."""
    parts = item.get("content") or item.get("summary") or ()
    return "\n".join(part.get("text", "") for part in parts)


def chat_tools(tools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rewrite Responses function tools as Chat Completions tools; ones in the chat form already pass."""
    return [_chat_tool(tool) for tool in tools]


def responses_tools(tools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rewrite Chat Completions tools as Responses function tools; ones in the Responses form already pass."""
    return [{"type": "function", **tool["function"]} if "function" in tool else dict(tool) for tool in tools]


def _chat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if "function" in tool:
        return dict(tool)
    function = {key: tool[key] for key in ("name", "description", "parameters") if tool.get(key) is not None}
    if tool.get("strict"):
        function["strict"] = True
    return {"type": "function", "function": function}


def _extend_turn(turn: Message, item: Item, kind: str, arguments: Literal["text", "object"]) -> None:
    if kind == "reasoning":
        before = turn.get("reasoning_content")
        turn["reasoning_content"] = f"{before}\n{reasoning_text(item)}" if before else reasoning_text(item)
    elif kind == "function_call":
        written = item.get("arguments") or "{}"
        value = written if arguments == "text" else _object(written)
        call = {"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": value}}
        if "tool_calls" in turn:
            turn["tool_calls"].append(call)
        else:
            turn["tool_calls"] = [call]
    else:
        turn["content"] = _content(item.get("content", ""))


def _object(written: str) -> Any:
    """Arguments that are no JSON object (the model's mistake) stay text; templates print them as they are."""
    try:
        value = orjson.loads(written)
    except orjson.JSONDecodeError:
        return written
    return value if isinstance(value, dict) else written


_PART_TYPES = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "text"}


def _content(content: Any) -> Any:
    """Text stays text; text parts are joined; pictures make chat content parts."""
    if isinstance(content, str):
        return content
    parts = list(content or ())
    if all(part.get("type") in _PART_TYPES for part in parts):
        return "".join(part.get("text") or part.get("refusal", "") for part in parts)
    return [_chat_part(part) for part in parts]


def _chat_part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part.get("type") == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url"), "detail": part.get("detail", "auto")}}
    if part.get("type") == "image_url":
        return dict(part)
    if part.get("type") not in _PART_TYPES:
        raise InputError(
            f"A content part of type {part.get('type')!r} has no chat form. "
            "Allowed: input_text, output_text, refusal, input_image."
        )
    return {"type": "text", "text": part.get("text") or part.get("refusal", "")}
