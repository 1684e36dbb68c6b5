"""An invented country as documents: each says one thing about its subject, and names the next one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import yaml

from gymrail_mcp_servers.search.corpus import Document

_WORDS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "data/country.yaml").read_text(encoding="utf-8"))
LINKS: dict[str, str] = _WORDS["links"]
"""Facts that lead to another subject, as a phrase."""
ENDS: dict[str, str] = _WORDS["ends"]
"""Facts that a question ends with."""


class World(NamedTuple):
    """The documents, and the facts in them by subject."""

    documents: tuple[Document, ...]
    facts: dict[str, dict[str, str]]
    people: tuple[str, ...]


def make_world(seed: int, size: int) -> World:
    """Return a country of so many towns, with a company and three people for each; equal seeds give equal countries."""
    rng = Random(f"world:{seed}")

    def stem() -> str:
        return rng.choice(_WORDS["starts"]) + rng.choice(_WORDS["name_ends"])

    towns = _unique(size, lambda: stem() + rng.choice(_WORDS["town_ends"]))
    houses = _unique(size, lambda: f"{stem()} & {rng.choice(_WORDS['heirs'])}")
    people = _unique(3 * size, lambda: f"{rng.choice(_WORDS['first_names'])} {stem()}")
    facts: dict[str, dict[str, str]] = {}
    for town in towns:
        year, river = str(rng.randint(1100, 1899)), f"{rng.choice(_WORDS['starts'])}a"
        facts[town] = {"mayor": rng.choice(people), "founded": year, "river": river}
    for house in houses:
        year = str(rng.randint(1900, 1999))
        facts[house] = {"founder": rng.choice(people), "seat": rng.choice(towns), "opened": year}
    for person in people:
        teacher = rng.choice([one for one in people if one != person])
        facts[person] = {"birthplace": rng.choice(towns), "employer": rng.choice(houses), "teacher": teacher}
    documents = [
        Document(f"doc-{place:04d}", subject, _text(rng, subject, told))
        for place, (subject, told) in enumerate(facts.items(), 1)
    ]
    return World(tuple(documents), facts, tuple(people))


def _text(rng: Random, subject: str, facts: dict[str, str]) -> str:
    told = [_WORDS["sentences"][name].format(s=subject, v=value) for name, value in facts.items()]
    if "opened" in facts:
        told.append(f"It makes {rng.choice(_WORDS['trades'])}.")
    text = told + rng.sample(_WORDS["filler"], 3)
    rng.shuffle(text)
    return " ".join(text)


def _unique(count: int, make: Callable[[], str]) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[make()] = None
    return list(found)
