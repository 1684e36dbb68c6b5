"""Drawing instructions that can be kept together from `rules.yaml`."""

from __future__ import annotations

import functools
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import yaml

FILLER = (
    "The morning light falls on the long road.", "People walk there and talk about small things.",
    "A kind worker opens the door for them.", "They sit down and look at the water.",
    "The wind is soft and the day is warm.", "Most of them come back after a while.",
)  # fmt: skip
"""Sentences without commas, digits, and the letters q and z."""


class Rule(NamedTuple):
    id: str
    kwargs: dict[str, Any]
    text: str
    """What the prompt says."""


def draw_rules(rng: Random) -> tuple[str, list[Rule]]:
    """Draw a thing to write about, and two to four instructions that do not contradict each other."""
    table, values = _table(), _draw_values(rng)
    chosen = [rng.choice(group) for group in rng.sample(table["groups"], rng.randint(2, 4))]
    ids = {entry["id"] for entry in chosen}
    dropped = {two for one, two in table["contrary"] if one in ids and two in ids}
    topic = rng.choice(table["topics"])
    return f"Write about {topic}.", [_rule(entry, values) for entry in chosen if entry["id"] not in dropped]


def draw_counter(rng: Random) -> tuple[str, list[Rule]]:
    """Draw a question, and the instruction that turns its answer."""
    values = _draw_values(rng)
    entry = rng.choice(_table()["counter"])
    rule = _rule({**entry, "id": f"counterintuitive:{entry['id']}"}, values)
    return entry["asked"].format_map(_shown(values)), [rule]


def _rule(entry: dict[str, Any], values: dict[str, Any]) -> Rule:
    given = entry.get("kwargs", {}).items()
    kwargs = {
        name: values[value[1:]] if isinstance(value, str) and value.startswith("$") else value for name, value in given
    }
    return Rule(entry["id"], kwargs, entry["text"].format_map(_shown(values)))


def _draw_values(rng: Random) -> dict[str, Any]:
    table = _table()
    few, (one, two) = rng.randint(2, 5), rng.sample(range(11, 60), 2)
    options = [*rng.sample([change for change in range(-5, 6) if change], 3), 0]
    rng.shuffle(options)
    riddle, solution = rng.choice(list(table["riddles"].items()))
    return {
        "many": rng.randint(90, 140), "some": rng.randint(40, 120), "count": rng.randint(5, 14), "few": few,
        "nth": rng.randint(1, few), "word": rng.choice(table["words"]), "pair": rng.sample(table["words"], 2),
        "bad": rng.sample(table["frowned"], 2), "phrase": rng.choice(table["phrases"]), "letter": rng.choice("eiouy"),
        "question": rng.choice(table["questions"]), "riddle": riddle, "solution": solution,
        "sentence": rng.choice(FILLER), "one": one, "two": two, "sum": str(one + two),
        "greater": "yes" if one > two else "no", "options": [str(one + two + change) for change in options],
    }  # fmt: skip


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    return {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items()}


@functools.cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("rules.yaml").read_text(encoding="utf-8"))
