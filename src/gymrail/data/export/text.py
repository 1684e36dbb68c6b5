"""Conversations as plain text, in the way of Hermes and Qwen, for what takes text alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gymrail.data.export.conversation import words_of
from gymrail.messages import Message

_HEADER = "You may call these tools. One JSON schema a line:"
_FOOTER = 'A call is one JSON object between tags:\n<tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call>'


def with_tools(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Return the messages with the tools told in the system message, for loaders that have no place for tools."""
    if not tools:
        return list(messages)
    lines = "\n".join(orjson.dumps(tool).decode() for tool in tools)
    told = f"{_HEADER}\n<tools>\n{lines}\n</tools>\n{_FOOTER}"
    if messages and messages[0]["role"] == "system":
        words = words_of(messages[0])
        return [{**messages[0], "content": f"{words}\n\n{told}" if words else told}, *messages[1:]]
    return [{"role": "system", "content": told}, *messages]


def spoken(message: Message) -> str:
    """Return all of a message as text: reasoning, words, tool calls, a tool's answer."""
    if message["role"] == "tool":
        return f"<tool_response>\n{words_of(message)}\n</tool_response>"
    parts = []
    if message.get("reasoning_content"):
        parts.append(f"<think>\n{message['reasoning_content']}\n</think>")
    if words_of(message):
        parts.append(words_of(message))
    for call in message.get("tool_calls") or ():
        parts.append(f"<tool_call>\n{orjson.dumps(call['function']).decode()}\n</tool_call>")
    return "\n".join(parts)


def as_text(messages: Sequence[Message]) -> str:
    """Return a conversation as one text; a lone message has no name before it."""
    if len(messages) == 1:
        return spoken(messages[0])
    return transcript(messages)


def transcript(messages: Sequence[Message]) -> str:
    """Return a conversation as one text, each message after its speaker."""
    return "\n\n".join(f"{message['role']}: {spoken(message)}" for message in messages)
