"""Statistics of task files, under the names of NeMo Gym's `*_metrics.json`; memory does not grow with the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from gymrail.data.hash_table import hash64

_PLACES = 1 << 14
"""Different strings that are counted one by one; beyond, their number is estimated, within 1% or so."""
_SPACE = 1 << 64
_NUMBER = (int, float)
_NOT_MEASURED = frozenset({"responses_create_params", "response", "agent_ref"})
_KNOWN, _SHORT = 256, 200
_PENDING = 1 << 10
"""Different values that are counted before they are added up."""


class RowStatistics:
    """Tools, turns, words, temperature and every other field of the rows of one file."""

    def __init__(self) -> None:
        self.rows = 0
        self._tools, self._turns, self._words, self._temperature = Numbers(), Numbers(), Numbers(), Numbers()
        self._others: dict[str, Numbers | Strings] = {}

    def add(self, values: Mapping[str, Any], times: int = 1) -> None:
        """Count a row, so many times."""
        self.rows += times
        parameters = values["responses_create_params"]
        tools, temperature, prompt = parameters.get("tools"), parameters.get("temperature"), parameters.get("input")
        if tools is not None:
            self._tools.add(len(tools), times)
        turns = 1 if isinstance(prompt, str) else sum(item.get("role") == "user" for item in prompt or ())
        if turns:
            self._turns.add(turns, times)
        if isinstance(temperature, _NUMBER):
            self._temperature.add(temperature, times)
        # The measure is defined on Python's own JSON, with a blank behind each comma and colon.
        text = json.dumps(parameters)
        self._words.add(len(text.split()) if "  " in text else text.count(" ") + 1, times)
        for name, value in values.items():
            if name not in _NOT_MEASURED:
                for item in value if isinstance(value, list) else (value,):
                    self._add_field(name, item, times)

    def to_json(self) -> dict[str, Any]:
        """Return the metrics; numbers are rounded as NeMo Gym rounds them, to 2 digits, or 3 between -1 and 1."""
        return {
            "Number of examples": self.rows,
            "Number of tools": self._tools.to_json(),
            "Json-dumped number of words (proxy for token count)": self._words.to_json(),
            "Number of turns": self._turns.to_json(),
            "Temperature": self._temperature.to_json(),
            **{name: found.to_json() for name, found in self._others.items()},
        }

    def _add_field(self, name: str, value: Any, times: int) -> None:
        known = self._others.get(name)
        if known is None:
            if isinstance(value, str):
                known = self._others[name] = Strings()
            elif isinstance(value, _NUMBER):
                known = self._others[name] = Numbers()
            else:
                return
        known.add(value, times)


class Numbers:
    """Count, mean, bounds and standard deviation of numbers."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = 0.0
        self._low, self._high = math.inf, -math.inf
        self._pending: dict[float, int] = {}

    def add(self, value: Any, times: int) -> None:
        """Count a number, so many times; anything else in a field of numbers is left out."""
        if isinstance(value, _NUMBER) and -1e300 < value < 1e300:
            pending = self._pending
            pending[value] = pending.get(value, 0) + times
            if len(pending) >= _PENDING:
                self._sum()

    def _sum(self) -> None:
        for value, times in self._pending.items():
            number = float(value)
            count = self._count + times
            difference = number - self._mean
            self._mean += difference * times / count
            self._squares += difference * (number - self._mean) * times
            self._count = count
            self._low, self._high = min(self._low, number), max(self._high, number)
        self._pending = {}

    def to_json(self) -> dict[str, Any]:
        self._sum()
        count = self._count
        deviation = math.sqrt(self._squares / (count - 1)) if count > 1 else 0.0
        low, high = (self._low, self._high) if count else (0.0, 0.0)
        return {
            "Total # non-null values": count,
            "Average": _rounded(self._mean),
            "Min": _rounded(low),
            "Max": _rounded(high),
            "Standard deviation": _rounded(deviation),
        }


class Strings:
    """How many strings there are, and how many different ones: exactly up to some thousands, then by the k smallest of
    their hashes, which lie the closer the more there are."""

    def __init__(self) -> None:
        self._total = 0
        self._hashes: set[int] = set()
        self._known: set[str] = set()
        """The first few short ones, which need no hash."""
        self._bound = _SPACE

    def add(self, value: Any, times: int) -> None:
        """Count a string, so many times; anything else in a field of strings is left out."""
        if not isinstance(value, str):
            return
        self._total += times
        if value in self._known:
            return
        if len(self._known) < _KNOWN and len(value) < _SHORT:
            self._known.add(value)
        key = hash64(value.encode("utf-8", "surrogatepass"))
        if key < self._bound:
            self._hashes.add(key)
            if len(self._hashes) >= 2 * _PLACES:
                self._hashes = set(sorted(self._hashes)[:_PLACES])
                self._bound = max(self._hashes)

    def to_json(self) -> dict[str, Any]:
        if self._bound == _SPACE:
            return {"unique_count": len(self._hashes), "total_count": self._total}
        kept = sorted(self._hashes)[:_PLACES]
        estimate = round((_PLACES - 1) * _SPACE / kept[-1])
        return {
            "unique_count": min(estimate, self._total), "total_count": self._total, "unique_count_is_estimated": True
        }  # fmt: skip


def _rounded(value: float) -> float:
    return round(value, 2) if abs(value) >= 1 else round(value, 3)
