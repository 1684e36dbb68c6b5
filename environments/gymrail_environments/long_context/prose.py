"""Prose without meaning: the daily log of a harbour, as long as one likes, from a random generator alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

LOG: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "data/log.yaml").read_text(encoding="utf-8"))
"""Words, sentences and questions by their kind."""


def sentences(rng: Random) -> Iterator[str]:
    """Yield sentences of the log, endlessly. None names a person or a number."""
    while True:
        who, did, when, then = (rng.choice(LOG[kind]) for kind in ("who", "did", "when", "then"))
        form = rng.randrange(3)
        if form == 0:
            yield f"{when} {who} {did}, {then}."
        elif form == 1:
            yield f"{who[0].upper()}{who[1:]} {did}, {then}."
        else:
            yield f"{when} {who} {did}."


def names(rng: Random, count: int) -> list[str]:
    """Return different full names."""
    every = [f"{first} {last}" for first in LOG["first_names"] for last in LOG["surnames"]]
    return rng.sample(every, count)
