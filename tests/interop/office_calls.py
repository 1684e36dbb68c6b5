"""Random tool calls over an office's tables: valid ones, and the ways in which models get them wrong."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from gymrail_mcp_servers.workplace.server import BOARDS, LISTS, METRICS, PLOTS, PRODUCTS, STATUSES, Workplace
from gymrail_mcp_servers.workplace.tables import COLUMNS, Office

TABLE_OF = {"email": "emails", "calendar": "calendar", "project": "tasks", "customer": "customers"}
DATES = ("2023-10-15", "2023-11-30", "2023-12-01", "2023-12-05", "2023-11", "11/20/2023", "soon", "")
TIMES = ("2023-11-20 09:00:00", "2023-12-04 10:30:00", "2023-12-01 9:00", "2023-12-08", "2023-12-04T13:00", "noon")
TEXTS = ("Hello there", "Quarterly plan", "RE: plan", "sync up", "Thanks!\nSam", "")


def random_calls(office: Office, rng: Random) -> list[dict[str, str]]:
    """Return a sequence of calls; few tools in it, so that later calls meet what earlier ones did."""
    tools = rng.sample(list(Workplace.tools), rng.randint(2, 5))
    return [_random_call(office, rng.choice(tools), rng) for _ in range(rng.randint(3, 9))]


def _random_call(office: Office, tool: str, rng: Random) -> dict[str, str]:
    parameters = Workplace.tools[tool].parameters
    arguments: dict[str, Any] = {
        name: _value(office, tool, name, rng)
        for name in parameters["properties"]
        if rng.random() < (0.95 if name in parameters["required"] else 0.4)
    }
    if arguments and rng.random() < 0.05:
        arguments[rng.choice(list(arguments))] = None
    if rng.random() < 0.03:
        arguments["no_such_argument"] = "x"
    return {"name": tool, "arguments": json.dumps(arguments)}


def _value(office: Office, tool: str, name: str, rng: Random) -> Any:
    table = TABLE_OF.get(tool.partition("_")[0], "customers")
    entries = getattr(office, table).entries
    row = rng.choice(entries[:12] if rng.random() < 0.7 else entries).row
    if name in ("page", "page_size"):
        return rng.choice((1, 2, 3, 5, 50, 1000, 0, -1))
    if name.endswith("_id"):
        own = row.get(name) or office.visits[rng.randrange(40)]["visitor_id"]
        return own if rng.random() < 0.85 else rng.choice(("00000000", "7", "abc", "00009999", "500", "00000300", ""))
    if name == "field":
        return rng.choice(COLUMNS[table]) if rng.random() < 0.9 else rng.choice(("colour", "id", ""))
    if name == "new_value":
        return rng.choice((*BOARDS, *LISTS, *STATUSES, *PRODUCTS, *office.directory[:4], *TIMES, *TEXTS, "45", "-5"))
    return rng.choice(_choices(office, name, row))


def _choices(office: Office, name: str, row: dict[str, Any]) -> list[str]:
    if name in ("time_min", "time_max", "event_start"):
        return [*TIMES, *DATES]
    if "date" in name or name.startswith("follow_up_by"):
        return list(DATES)
    if name in ("assigned_to_email", "recipient", "participant_email", "customer_email"):
        address = _address_in(row, "assigned_to_email", "sender/recipient", "participant_email")
        return [address, address.upper(), office.directory[0], office.directory[3], "nobody", "a@b.com", ""]
    words = str(next(iter([row.get(column) for column in ("task_name", "event_name", "subject", "customer_name")
                           if row.get(column)]), "x"))  # fmt: skip
    known = {
        "name": ["aisha", "Patel", "atlas", "zzz", "", "a.*z", "("],
        "query": [words, words.split()[0], "update", "AISHA", "no such words", "", "s[yz]nc", "a|b"],
        "board": [*BOARDS, "design"], "list_name": [*LISTS, "backlog"], "status": [*STATUSES, "won"],
        "product_interest": [*PRODUCTS, "soft"], "duration": ["30", "90", "0", "-3", "1.5", "half an hour"],
        "value_to_plot": [*METRICS, "visits"], "plot_type": [*PLOTS, "pie"],
        "traffic_source": ["direct", "social media", "Direct", ""],
    }  # fmt: skip
    return known.get(name, [words, words.lower(), words.split()[-1], *TEXTS])


def _address_in(row: dict[str, Any], *columns: str) -> str:
    return next((row[column] for column in columns if row.get(column)), "a@b.com")
