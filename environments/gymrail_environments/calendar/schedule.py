"""Days of events with constraints: reading a model's calendar, judging it, and scheduling.

Times are minutes since midnight. "before X" is "ends by X", "after X" is "begins at X or later".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, field_validator

_TIME = re.compile(r"\s*(\d{1,2})(?::(\d{2}))?\s*([ap]m)?\s*", re.IGNORECASE)
_CONSTRAINT = re.compile(r"(before|after|at|between)\s+(.+?)(?:\s+and\s+(.+))?", re.IGNORECASE)
_LIST = re.compile(r"\[\s*[\]{]")
_TRIED = 200
"""Places at which a list may begin, from the last one back."""


class Event(BaseModel):
    """What is known of an event, as in the rows."""

    event_id: int | str
    event_name: str | None = None
    duration: int
    constraint: str | None = None
    """`before X`, `after X`, `between X and Y`, `at X`, or null."""
    min_time: str
    max_time: str

    @field_validator("min_time", "max_time")
    @classmethod
    def _is_a_time(cls, text: str) -> str:
        minutes(text)
        return text

    @field_validator("constraint")
    @classmethod
    def _can_be_read(cls, text: str | None) -> str | None:
        _limits(text)
        return text

    @property
    def window(self) -> tuple[int, int, int | None]:
        """The earliest start, the latest end, and the exact start where one is asked for."""
        low, high, exact = _limits(self.constraint)
        return max(low, minutes(self.min_time)), min(high, minutes(self.max_time)), exact


class Problem(NamedTuple):
    kind: str
    """`no_calendar`, `events`, `malformed`, `conflict`, `duration` or `constraint`."""
    text: str


def minutes(text: Any) -> int:
    """Read "14:30", "2pm" or "2:30 pm".

    Raises:
        ValueError: it is no time of day.
    """
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None or (found[2] is None and found[3] is None):
        raise ValueError(f"{text!r} is no time; write 14:30 or 2:30pm")
    hour, minute, half = int(found[1]), int(found[2] or 0), (found[3] or "").lower()
    if half:
        if not 1 <= hour <= 12:
            raise ValueError(f"{text!r} is no time; write 14:30 or 2:30pm")
        hour = hour % 12 + 12 * (half == "pm")
    if hour * 60 + minute > 24 * 60 or minute > 59:
        raise ValueError(f"{text!r} is no time; write 14:30 or 2:30pm")
    return hour * 60 + minute


def clock(time: int) -> str:
    """Write minutes as 14:30."""
    return f"{time // 60:02d}:{time % 60:02d}"


def spoken(time: int) -> str:
    """Write minutes as 2:30pm, or 2pm."""
    minute = f":{time % 60:02d}" if time % 60 else ""
    return f"{(time // 60 - 1) % 12 + 1}{minute}{'am' if time < 720 else 'pm'}"


def last_calendar(text: str) -> list[dict[str, Any]] | None:
    """Return the last JSON list of objects in a text, the empty list where there is no other; None without one."""
    starts = [found.start() for found in _LIST.finditer(text)][-_TRIED:]
    decoder = json.JSONDecoder()
    best: list[dict[str, Any]] | None = None
    end = 0
    for start in starts:
        if start < end:
            continue  # inside the list before it
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, list) and all(isinstance(item, dict) for item in value) and (value or not best):
            best = value
    return best


def problem_with(calendar: Sequence[Mapping[str, Any]] | None, expected: Mapping[str, Event]) -> Problem | None:
    """Return the first thing that is wrong with a calendar; None when it is right."""
    if not calendar:
        return Problem("no_calendar", "there is no JSON list of events") if expected else None
    placed: dict[str, tuple[int, float]] = {}
    for item in calendar:
        name, duration = str(item.get("event_id")), item.get("duration")
        if name in placed or name not in expected:
            return Problem("events", f"event {name} is {'there twice' if name in placed else 'not one of the events'}")
        if isinstance(duration, bool) or not isinstance(duration, int | float):
            return Problem("malformed", f"event {name}: the duration {duration!r} is no number of minutes")
        try:
            start = minutes(item.get("start_time"))
        except ValueError as error:
            return Problem("malformed", f"event {name}: {error}")
        placed[name] = start, duration
    missing = [name for name in expected if name not in placed]
    if missing:
        return Problem("events", f"event {missing[0]} is missing")
    return _conflict(placed) or next(filter(None, (_broken(placed[name], expected[name]) for name in expected)), None)


def schedule(events: Mapping[str, Event], step: int = 15) -> dict[str, int] | None:
    """Return a start for each event without overlaps, or None: a search through starts a quarter of an hour apart,
    the tightest event first."""
    order = sorted(events, key=lambda name: (_slack(events[name]), name))
    return _place(order, events, {}, step)


def _place(order: list[str], events: Mapping[str, Event], starts: dict[str, int], step: int) -> dict[str, int] | None:
    if not order:
        return starts
    event = events[order[0]]
    low, high, exact = event.window
    for start in range(low, high - event.duration + 1, step) if exact is None else (exact,):
        end = start + event.duration
        if (
            low <= start
            and end <= high
            and all(end <= other or other + events[name].duration <= start for name, other in starts.items())
        ):
            found = _place(order[1:], events, {**starts, order[0]: start}, step)
            if found is not None:
                return found
    return None


def _slack(event: Event) -> int:
    low, high, exact = event.window
    return 0 if exact is not None else high - low - event.duration


def _limits(constraint: str | None) -> tuple[int, int, int | None]:
    if constraint is None:
        return 0, 24 * 60, None
    found = _CONSTRAINT.fullmatch(constraint.strip())
    if found is None or (found[1].lower() == "between") != (found[3] is not None):
        raise ValueError(f"the constraint {constraint!r} is none of 'before X', 'after X', 'between X and Y', 'at X'")
    kind, time = found[1].lower(), minutes(found[2])
    if kind == "between":
        return time, minutes(found[3]), None
    return (time if kind == "after" else 0), (time if kind == "before" else 24 * 60), (time if kind == "at" else None)


def _conflict(placed: Mapping[str, tuple[int, float]]) -> Problem | None:
    row = sorted(placed.items(), key=lambda item: item[1])
    latest, until = "", -1.0
    for name, (start, duration) in row:
        if start < until and duration > 0:
            return Problem("conflict", f"events {latest} and {name} overlap")
        if start + duration > until:
            latest, until = name, start + duration
    return None


def _broken(slot: tuple[int, float], event: Event) -> Problem | None:
    start, duration = slot
    if duration != event.duration:
        return Problem("duration", f"event {event.event_id} takes {event.duration} minutes, not {duration:g}")
    low, high, exact = event.window
    if start < low or start + duration > high or exact not in (None, start):
        rule = f"{event.constraint or 'no constraint'}, from {event.min_time} to {event.max_time}"
        return Problem("constraint", f"event {event.event_id} at {clock(start)} breaks its rule ({rule})")
    return None
