"""Questions with one right and several wrong answers, from small tables of facts and from arithmetic."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import yaml

_FACTS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "data/facts.yaml").read_text(encoding="utf-8"))
CAPITALS, SYMBOLS, LEGS = _FACTS["capitals"], _FACTS["symbols"], _FACTS["legs"]
MODES: dict[str, str] = _FACTS["asks"]
"""How a task asks for its answer, by its grading mode."""
FORMS: list[str] = _FACTS["forms"]
"""Ways to write an answer X; the oracle takes the first that a row's grading reads."""


def make_question(rng: Random) -> tuple[str, str, list[str]]:
    """Return a question, its answer and three to five other options, all different."""
    kind = rng.choice((_capital, _symbol, _arithmetic, _legs))
    question, right, others = kind(rng)
    return question, right, rng.sample(sorted(others - {right}), rng.randint(3, 5))


def _capital(rng: Random) -> tuple[str, str, set[str]]:
    country = rng.choice(list(CAPITALS))
    return f"What is the capital of {country}?", CAPITALS[country], set(CAPITALS.values())


def _symbol(rng: Random) -> tuple[str, str, set[str]]:
    element = rng.choice(list(SYMBOLS))
    # Lenient grading takes an option's own text, so a one-letter option could not be told from a choice.
    others = {symbol for symbol in SYMBOLS.values() if len(symbol) > 1}
    if len(SYMBOLS[element]) == 1:
        return f"Which element has the symbol {SYMBOLS[element]}?", element, set(SYMBOLS)
    return f"What is the chemical symbol of {element}?", SYMBOLS[element], others


def _arithmetic(rng: Random) -> tuple[str, str, set[str]]:
    a, b = rng.randint(11, 99), rng.randint(3, 12)
    right = a * b
    near = {right + change for change in (-20, -10, -2, -1, 1, 2, 10, 20, a, -a, b, -b)}
    return f"What is {a} times {b}?", str(right), {str(value) for value in near if value > 0}


def _legs(rng: Random) -> tuple[str, str, set[str]]:
    animal = rng.choice(list(LEGS))
    count = rng.randint(2, 12)
    right = LEGS[animal] * count
    return (
        f"How many legs do {count} animals have, each {animal}?",
        str(right),
        {str(right + step) for step in range(1, 13)},
    )
