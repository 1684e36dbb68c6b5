"""An office of made-up people and prose, in the shape of the original's tables: equal seeds give equal offices, on
every machine."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from random import Random
from typing import Any

import orjson

from gymrail.tables import Row
from gymrail_mcp_servers.workplace.tables import COLUMNS, Office

OWNER = "Robin"
"""Whose office it is: the user that the agent works for."""
_TODAY = date(2023, 11, 30)
_PROSE: dict[str, Any] = orjson.loads(Path(__file__).with_name("prose.json").read_bytes())
PEOPLE: dict[str, str] = {
    name.split()[0]: f"{name.lower().replace(' ', '.')}@{_PROSE['domain']}" for name in _PROSE["people"]
}
"""Addresses by first name, which is nobody else's."""


@functools.lru_cache(maxsize=32)
def generated_office(seed: int = 0) -> Office:
    """Make the office of a seed: 500 emails, 300 events, 1000 visits, 300 tasks, 200 customers, 20 colleagues."""
    rng = Random(f"office:{seed}")
    rows = {
        "calendar": _numbered("calendar", _events(rng)),
        "tasks": _numbered("tasks", _tasks(rng)),
        "customers": _numbered("customers", _customers(rng)),
        "visits": [dict(zip(COLUMNS["visits"], _visit(rng), strict=True)) for _ in range(1000)],
    }
    topics = [*_PROSE["topics"], *(row["event_name"] for row in rows["calendar"][:40])]
    topics += [f"'{row['task_name']}'" for row in rows["tasks"][:60]]
    rows["emails"] = _numbered("emails", _emails(rng, topics))
    return Office(rows, tuple(PEOPLE.values()))


def _numbered(table: str, rows: Iterable[Sequence[str | None]]) -> list[Row]:
    """Rows with their ids, which say nothing of their order, in the order of their dates."""
    found = sorted(rows, key=lambda row: (row[{"emails": 3, "calendar": 2, "tasks": 3, "customers": 4}[table]], row[1]))
    ids = list(range(len(found)))
    Random(f"{table}:{len(found)}").shuffle(ids)
    return [dict(zip(COLUMNS[table], (f"{id:08}", *row), strict=True)) for id, row in zip(ids, found, strict=True)]


def _events(rng: Random) -> list[tuple[str, ...]]:
    days = [day for day in _days(date(2023, 9, 4), date(2024, 1, 12)) if day.weekday() < 5]
    starts = [datetime.combine(day, time(hour, minute)) for day in days for hour, minute in _SLOTS]
    people = list(PEOPLE.values())
    return [
        (rng.choice(_PROSE["meetings"]), rng.choice(people), str(start), rng.choice(("30", "60", "90")))
        for start in rng.sample(starts, 300)
    ]


_SLOTS = ((9, 0), (10, 30), (13, 0), (14, 30), (16, 0))
"""An hour and a half apart: events never overlap."""


def _tasks(rng: Random) -> list[tuple[str, ...]]:
    found = []
    days = _days(date(2023, 11, 20), date(2024, 1, 5))
    for board, (verbs, things) in _PROSE["tasks"].items():
        names = [f"{verb} {thing}" for verb in verbs for thing in things]
        for name in rng.sample(names, 100):
            owner, day = rng.choice(list(PEOPLE.values())), rng.choice(days)
            list_name = rng.choice(("Backlog", "In Progress", "In Review", "Completed"))
            found.append((name, owner, list_name, str(day), board))
    return found


def _customers(rng: Random) -> list[tuple[str | None, ...]]:
    names = [f"{first} {last}" for first in _PROSE["first_names"] for last in _PROSE["last_names"]]
    found = []
    for name in rng.sample(names, 200):
        address = f"{name.lower().replace(' ', '.')}@{rng.choice(_PROSE['companies'])}.example"
        phone = f"555-{rng.randint(100, 999)}-{rng.randint(1000, 9999)}" if rng.random() < 0.8 else None
        last, follow_up = (_TODAY + timedelta(days=shift) for shift in (-rng.randint(0, 60), rng.randint(1, 40)))
        notes = " ".join(f"{last - timedelta(days=9 * n)}: {rng.choice(_PROSE['contacts'])}" for n in range(2))
        product = rng.choice(("Software", "Hardware", "Services", "Consulting", "Training"))
        status = rng.choice(("Qualified", "Won", "Lost", "Lead", "Proposal"))
        owner = rng.choice(list(PEOPLE.values()))
        found.append((owner, name, address, phone, f"{last} 23:59:00", product, status, f"{follow_up} 23:59:00", notes))
    return found


def _visit(rng: Random) -> tuple[str, ...]:
    day = rng.choice(_days(date(2023, 9, 1), _TODAY))
    source = rng.choice(("direct", "referral", "search engine", "social media"))
    engaged = str(rng.random() < 0.5)
    return str(day), f"{rng.randint(0, 9999):04}", str(rng.randint(1, 20)), str(rng.randint(1, 60)), source, engaged


def _emails(rng: Random, topics: Sequence[str]) -> list[tuple[str, ...]]:
    days = _days(date(2023, 9, 18), _TODAY)
    sent = rng.sample([datetime.combine(day, time(8 + n // 60, n % 60)) for day in days for n in range(600)], 500)
    found = []
    for moment in sent:
        first = rng.choice(list(PEOPLE))
        box, to, by = rng.choice((("inbox", OWNER, first), ("inbox", OWNER, first), ("outbox", first, OWNER)))
        subject = rng.choice(_PROSE["subjects"]).format(topic=rng.choice(topics))
        greeting, closing = rng.choice(_PROSE["greetings"]).format(name=to), rng.choice(_PROSE["closings"])
        body = f"{greeting}\n\n{rng.choice(_PROSE['openings'])} {rng.choice(_PROSE['requests'])}\n\n{closing}\n{by}"
        found.append((box, PEOPLE[first], subject[0].upper() + subject[1:], f"{moment}", body))
    return found


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
