"""Questions whose answers can be written in several ways: times, dates, quantities, names."""

from __future__ import annotations

import itertools
from datetime import date, timedelta
from random import Random

UNITS = {
    ("km", "metres"): 1000, ("metres", "centimetres"): 100, ("hours", "minutes"): 60, ("days", "hours"): 24,
    ("kg", "grams"): 1000, ("litres", "millilitres"): 1000, ("weeks", "days"): 7, ("dozens", "pieces"): 12,
}  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
PEOPLE = ("Ada", "Bo", "Chen", "Dara", "Emil", "Farah", "Gita", "Hugo", "Ines", "Jon", "Kaya", "Lena")
TRAITS = {"older": "oldest", "taller": "tallest", "faster": "fastest", "richer": "richest"}
TASKS = ("film", "lecture", "concert", "meeting", "match", "flight")


def make_question(rng: Random) -> tuple[str, str]:
    """Return a question and its answer in one of the ways to write it."""
    return rng.choice((_clock, _calendar, _quantity, _order))(rng)


def _clock(rng: Random) -> tuple[str, str]:
    start, minutes = 5 * rng.randint(72, 250), 5 * rng.randint(4, 60)
    end = (start + minutes) % 1440
    text = f"A {rng.choice(TASKS)} of {minutes} minutes begins at {start // 60:02d}:{start % 60:02d}. When does it end?"
    return text, f"{end // 60:02d}:{end % 60:02d}"


def _calendar(rng: Random) -> tuple[str, str]:
    first = date(rng.randint(1990, 2029), 1, 1) + timedelta(days=rng.randrange(365))
    later, days = rng.random() < 0.5, rng.randint(3, 60)
    other = first + timedelta(days=days if later else -days)
    return f"Which day is {days} days {'after' if later else 'before'} {_written(first)}?", _written(other)


def _quantity(rng: Random) -> tuple[str, str]:
    (large, small), factor = rng.choice(list(UNITS.items()))
    count, rest = rng.randint(2, 60), rng.randint(1, factor - 1)
    return f"How many {small} are {count} {large} and {rest} {small}?", f"{count * factor + rest} {small}"


def _order(rng: Random) -> tuple[str, str]:
    people, word = rng.sample(PEOPLE, rng.randint(3, 6)), rng.choice(list(TRAITS))
    facts = [f"{one} is {word} than {other}." for one, other in itertools.pairwise(people)]
    rng.shuffle(facts)
    place = rng.choice((0, 1))
    which = f"Who is the {TRAITS[word]}?" if place == 0 else f"Who comes right after the {TRAITS[word]}, in that order?"
    return f"{' '.join(facts)} {which}", people[place]


def _written(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"
