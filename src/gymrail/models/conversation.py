"""Long conversations as messages in JSON: what an episode's last call converted is kept, only what is new is converted.

An episode's conversation grows at its end, so without this an episode of n steps converts n²/2 of them. The kept part
is used only where the conversation still begins with the same JSON: another list is fine, any change is noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gymrail.messages import TOKEN_FIELDS
from gymrail.models.wire import to_json
from gymrail.task import Item

_SHORT = 12
"""Items below which converting everything costs less than comparing and keeping."""


class _Entry(NamedTuple):
    length: int
    """How many items it covers."""
    raw: bytes
    """The items' own JSON without the closing bracket, to compare with."""
    converted: bytes
    """Their messages' JSON, joined by commas, without brackets."""

    @property
    def size(self) -> int:
        return len(self.raw) + len(self.converted) + 300


class Conversations:
    """Converts conversations; remembers the most recently used long ones, up to `max_bytes`."""

    def __init__(self, convert: Callable[[Sequence[Item]], list[dict[str, Any]]], max_bytes: int = 64 << 20) -> None:
        self._convert = convert
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()  # event loops in several threads may share a model
        self.reused = 0
        """How many calls found their conversation's beginning converted."""

    def to_json(self, episode_id: str, items: Sequence[Item]) -> bytes:
        """Return the conversation's messages as JSON, joined by commas. Token fields do not reach them."""
        if len(items) < _SHORT or not episode_id:
            return to_json(self._convert(items))[1:-1]
        raw = to_json([without_tokens(item) for item in items])[:-1]
        entry = self._take(episode_id)
        if entry is not None and not (raw.startswith(entry.raw) and _stands_alone(items, entry.length)):
            entry = None
        converted = to_json(self._convert(items[entry.length :] if entry else items))[1:-1]
        if entry is not None:
            converted = b"%b,%b" % (entry.converted, converted) if converted else entry.converted
            self.reused += 1
        if _ends_turn(items[-1]):
            self._keep(episode_id, _Entry(len(items), raw, converted))
        return converted

    def _take(self, episode_id: str) -> _Entry | None:
        with self._lock:
            entry = self._entries.pop(episode_id, None)
            self._bytes -= entry.size if entry else 0
        return entry

    def _keep(self, episode_id: str, entry: _Entry) -> None:
        """Put the entry last, so that the first one is always the one used longest ago."""
        with self._lock:
            replaced = self._entries.pop(episode_id, None)
            self._bytes += entry.size - (replaced.size if replaced else 0)
            self._entries[episode_id] = entry
            while self._bytes > self._max_bytes:
                self._bytes -= self._entries.pop(next(iter(self._entries))).size


def without_tokens(item: Item) -> Item:
    """The item without its token fields; itself where it has none."""
    if "generation_token_ids" not in item and "prompt_token_ids" not in item:
        return item
    return {key: value for key, value in item.items() if key not in TOKEN_FIELDS}


def _ends_turn(item: Item) -> bool:
    """Whether nothing that follows can join this item's message: an assistant's items become one message together."""
    return item.get("role") != "assistant" and item.get("type") not in ("function_call", "reasoning")


def _stands_alone(items: Sequence[Item], start: int) -> bool:
    """Whether the items from `start` convert without the earlier ones: each tool output finds its call among them."""
    calls: set[Any] = set()
    for index in range(start, len(items)):
        kind = items[index].get("type")
        if kind == "function_call":
            calls.add(items[index].get("call_id"))
        elif kind == "function_call_output" and items[index].get("call_id") not in calls:
            return False
    return True
