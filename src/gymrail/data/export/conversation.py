"""A rollout's conversation as chat messages, and where two conversations part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gymrail.messages import Message, to_messages
from gymrail.task import Item


def conversation(items: Sequence[Item], instructions: str | None, *, keep_reasoning: bool = True) -> list[Message]:
    """Return the items as messages whose tool calls have their arguments as objects, as chat templates take them."""
    if not keep_reasoning:
        items = [item for item in items if item.get("type") != "reasoning"]
    return to_messages(items, arguments="object", instructions=instructions)


def shared_length(good: Sequence[Message], bad: Sequence[Message]) -> int | None:
    """Where the conversations part: the last answer of the model before which all is equal; None if they never do."""
    cut = None
    for place, (mine, theirs) in enumerate(zip(good, bad, strict=False)):
        if mine["role"] == "assistant" == theirs["role"]:
            cut = place
        if comparable(mine) != comparable(theirs):
            return cut
    return cut if len(good) != len(bad) else None


def comparable(message: Message) -> Message:
    """The message without the ids of its calls, which differ between rollouts that said the same."""
    if "tool_calls" not in message and "tool_call_id" not in message:
        return message
    kept = {key: value for key, value in message.items() if key != "tool_call_id"}
    if "tool_calls" in kept:
        kept["tool_calls"] = [call["function"] for call in kept["tool_calls"]]
    return kept


def fingerprint(message: Message) -> bytes:
    """The same as bytes: equal for messages that say the same."""
    return orjson.dumps(comparable(message), option=orjson.OPT_SORT_KEYS)


def words_of(message: Message) -> str:
    """The text of a message; pictures have none."""
    content: Any = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or ())
