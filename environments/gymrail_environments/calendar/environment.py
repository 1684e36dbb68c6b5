"""A day's calendar, built over a talk: the user adds events and constraints, and the last calendar is graded.

One row:

    {"responses_create_params": {"input": "Please add a 60-minute review (event id: 0), after 2pm. ..."},
     "exp_cal_state": {"0": {"event_id": 0, "event_name": "review", "duration": 60, "constraint": "after 2pm",
                             "min_time": "10:00", "max_time": "16:00"}}}
"""

from __future__ import annotations

import json
from collections.abc import Generator
from random import Random

from pydantic import Field

from gymrail import Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.errors import InputError
from gymrail_environments.calendar.schedule import Event, Problem, clock, last_calendar, problem_with, schedule, spoken

RULES = """You keep the user's calendar for one day. Rules:
1. Every answer holds the whole calendar as a JSON list, with one object per event:
   {{"event_id": number, "event_name": text, "start_time": "HH:MM" by the 24-hour clock, "duration": minutes}}
2. The calendar is empty at first. All events lie between {low} and {high}, and no two overlap.
3. What the user says of an event's time holds for the rest of the talk. Move other events as needed; do not ask back.
4. "before 11am" means that it ends by 11am, "after 2pm" that it begins at 2pm or later."""
KINDS = ("review", "interview", "rehearsal", "lunch", "workshop", "inspection", "call", "lesson", "fitting", "audit")
WITH = ("with Ada", "with Bruno", "with the board", "on the budget", "for the new lamp", "in room 4", "for Femi")
ASKS = ("Please add", "Could you put in", "I need", "Add")
THANKS = ("Thanks, that works. Show me the day once more.", "Good. What does my day look like now?")
MOST_EVENTS = 7


class CalendarTask(Task):
    exp_cal_state: dict[str, Event]
    """What the day must hold in the end, by event id."""
    follow_ups: list[str] = Field(default_factory=list)
    """The user's further turns, in order; rows of NeMo Gym have the whole talk in their input."""


class Calendar(Environment[CalendarTask]):
    """The last JSON list has the right events, durations, windows and constraints, and no overlaps."""

    @classmethod
    def generate(cls, rng: Random) -> CalendarTask:
        low, high = rng.choice(((600, 960), (540, 1020), (480, 840)))
        events = _draw_events(rng, low, high)
        turns = [turn for event in events for turn in _ask_for(rng, event)]
        if rng.random() < 0.3:
            turns.append(rng.choice(THANKS))
        rules = RULES.format(low=spoken(low), high=spoken(high))
        expected = {str(event.event_id): event.model_dump() for event in events}
        return CalendarTask.ask(turns[0], system=rules, exp_cal_state=expected, follow_ups=turns[1:])

    def reply(self, rollout: Rollout) -> str | None:
        put = sum(item.get("role") == "user" for item in rollout.items)
        return self.task.follow_ups[put] if put < len(self.task.follow_ups) else None

    def verify(self, rollout: Rollout) -> Verdict:
        problem = self._problem(rollout)
        if problem is None:
            return Verdict(1.0, metrics={"problem": None})
        return Verdict(0.0, metrics={"problem": problem.kind}, reason=problem.text)

    def solve(self) -> Generator[Turn, str, None]:
        starts = schedule(self.task.exp_cal_state)
        if starts is None:
            raise InputError(f"Task {self.task.id}: no schedule keeps all constraints of exp_cal_state.")
        for _ in self.task.follow_ups:
            yield "Noted."
        yield f"Here is your day:\n{self._write(starts)}"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Lose an event, or put one where it cannot be."""
        if turn == "Noted.":
            return turn
        starts = schedule(self.task.exp_cal_state) or {}
        name = rng.choice(sorted(starts))
        if rng.random() < 0.3 and len(starts) > 1:
            del starts[name]
        else:
            low, high, exact = self.task.exp_cal_state[name].window
            starts[name] = (exact or low) - 30 if rng.random() < 0.5 else high
        return self._write(starts)

    def _problem(self, rollout: Rollout) -> Problem | None:
        put = sum(item.get("role") == "user" for item in rollout.items)
        text = rollout.final_text if rollout.items and rollout.items[-1].get("role") == "assistant" else ""
        if put < len(self.task.follow_ups) or not text.strip():
            return Problem("unfinished", "the last turn was not answered")
        if "<think>" in text:
            return Problem("thinking", "the answer holds reasoning, marked by <think>")
        return problem_with(last_calendar(text), self.task.exp_cal_state)

    def _write(self, starts: dict[str, int]) -> str:
        rows = []
        for name, start in sorted(starts.items(), key=lambda item: item[1]):
            event = self.task.exp_cal_state[name]
            shown = {"event_id": event.event_id, "event_name": event.event_name or ""}
            rows.append({**shown, "start_time": clock(start), "duration": event.duration})
        return json.dumps(rows)


def _draw_events(rng: Random, low: int, high: int) -> list[Event]:
    """Events that fit one day, since they are cut out of one; each constraint leaves room around its place."""
    slots, time = [], low + 15 * rng.randint(0, 2)
    while len(slots) < MOST_EVENTS and time + 30 <= high:
        duration = rng.choice([length for length in (30, 45, 60, 75, 90) if time + length <= high])
        slots.append((time, duration))
        time += duration + 15 * rng.choice((0, 0, 1, 2, 4))
    slots = rng.sample(slots, rng.randint(2, min(len(slots), MOST_EVENTS)))
    window = {"min_time": clock(low), "max_time": clock(high)}
    names = rng.sample([f"{kind} {other}" for kind in KINDS for other in WITH], len(slots))
    return [
        Event(event_id=number, event_name=name, duration=duration, constraint=_around(rng, start, duration), **window)
        for number, (name, (start, duration)) in enumerate(zip(names, slots, strict=True))
    ]


def _around(rng: Random, start: int, duration: int) -> str | None:
    early, late = (15 * rng.randint(0, 4) for _ in range(2))
    kind = rng.choice(("before", "after", "between", "at", None))
    if kind == "between":
        return f"between {spoken(start - early)} and {spoken(start + duration + late)}"
    time = {"before": start + duration + late, "after": start - early, "at": start}.get(kind or "")
    return None if time is None else f"{kind} {spoken(time)}"


def _ask_for(rng: Random, event: Event) -> list[str]:
    request = f"{rng.choice(ASKS)} the {event.event_name} (event id: {event.event_id}), {event.duration} minutes"
    if event.constraint is None:
        return [f"{request}."]
    if rng.random() < 0.5:
        return [f"{request}, {event.constraint}."]
    return [f"{request}.", f"The {event.event_name} (event id: {event.event_id}) has to be {event.constraint}."]
