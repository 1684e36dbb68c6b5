"""Requests: one or two intents of `intents.yaml` about an office, as a prompt and the plan that fulfils it."""

from __future__ import annotations

import functools
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

import yaml

from gymrail_environments.workplace_assistant.plan import Step
from gymrail_mcp_servers.workplace.generated import PEOPLE
from gymrail_mcp_servers.workplace.server import BOARDS, LISTS, PLOTS, PRODUCTS, STATUSES
from gymrail_mcp_servers.workplace.tables import Office

_PARTS = ("email", "calendar", "project_management", "customer_relationship_manager", "analytics")
_OPTIONS = ("pick", "where", "each", "when")


def draw_request(rng: Random, office: Office) -> tuple[str, str, list[Step], int]:
    """Return a request's category, its prompt, its plan and the number of its intents."""
    known = _known()
    parts = ["several"] if rng.random() < 0.2 else rng.sample(_PARTS, rng.choice((1, 2)))
    texts, plan = [], []
    for part in parts:
        intent = rng.choice([one for one in known["intents"] if one["part"] == part])
        values = _draw(rng, office, known["words"])
        texts.append(rng.choice(intent["says"]).format(**values))
        steps = [known["lookups"].get(step, step) if isinstance(step, str) else step for step in intent["steps"]]
        plan += [_step(step, values, len(plan)) for step in steps]
    category = parts[0] if parts[0] in _PARTS and len(parts) == 1 else "multi_domain"
    prompt = texts[0] if len(texts) == 1 else rng.choice(known["words"]["connections"]).format(*texts)
    return category, prompt, plan, len(parts)


@functools.cache
def _known() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("intents.yaml").read_text(encoding="utf-8"))


def _draw(rng: Random, office: Office, words: dict[str, Any]) -> dict[str, Any]:
    """Everything that a request may name."""
    person, other = rng.sample(list(PEOPLE), 2)
    plot, other_plot = rng.sample(PLOTS, 2)
    past, recent = sorted(rng.sample(range(90), 2))
    coming = [date(2023, 12, 1) + timedelta(days=n) for n in range(28)]
    metric = rng.choice(list(words["measure"]))
    customers = [row["customer_name"] for row, _ in office.customers.entries]
    new = rng.sample(customers, 2)
    drawn = {name: rng.choice(words[name]) for name in ("message", "subject", "event", "start", "minutes", "limit")}
    return {
        **drawn, "person": person, "person_lower": person.lower(), "other": other, "plot": plot,
        "other_plot": other_plot, "past": date(2023, 9, 1) + timedelta(days=past),
        "recent": date(2023, 9, 1) + timedelta(days=recent), "metric": metric, "measure": words["measure"][metric],
        "day": rng.choice([day for day in coming if day.weekday() < 5]), "status": rng.choice(STATUSES),
        "product": rng.choice(PRODUCTS), "board": rng.choice(BOARDS), "list": rng.choice(LISTS),
        "open_list": rng.choice(LISTS[:3]), "task": rng.choice(office.tasks.entries).row["task_name"],
        "customer": rng.choice(customers), "new_customer": f"{new[0]}-{new[1].split()[1]}",
    }  # fmt: skip


def _step(step: dict[str, Any], values: dict[str, Any], start: int) -> Step:
    """A step with what was drawn, and its references counted from where its intent begins in the plan."""
    name = next(name for name in step if name not in _OPTIONS)
    arguments = {key: _filled(value, values, start) for key, value in step[name].items()}
    made = {"name": name, "arguments": arguments, **{key: step[key] for key in _OPTIONS if key in step}}
    if "each" in made:
        made["each"] += start
    if "when" in made:
        counted, limit, is_above = made["when"]
        made["when"] = [counted + start, int(limit.format(**values)), is_above]
    return made


def _filled(value: Any, values: dict[str, Any], start: int) -> Any:
    if not isinstance(value, str):
        return value
    if value.startswith("$"):
        index, dot, column = value[1:].partition(".")
        return f"${int(index) + start}{dot}{column}"
    return value.format(**values)
