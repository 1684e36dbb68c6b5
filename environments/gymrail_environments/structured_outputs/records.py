"""Records with a schema and a text that says them."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

NAMES = (
    "Ada Novak",
    "Bruno Fischer",
    "Chen Kimura",
    "Dana Moreau",
    "Elif Haddad",
    "Femi Adeyemi",
    "Greta Bergman",
    "Ines Castillo",
)
TOWNS = ("Aarhus", "Bilbao", "Cork", "Dakar", "Essen", "Fukuoka", "Ghent", "Lund", "Malmo", "Porto", "Quito", "Turin")
GOODS = ("bolts", "cables", "drills", "filters", "gears", "hinges", "lamps", "pumps", "seals", "tiles", "valves")
CODES = tuple(f"{part}-{number}" for part in ("AMB", "COB", "DEL", "FAL") for number in range(107, 990, 41))
TIMES = tuple(f"{hour:02d}:{minute:02d}" for hour in range(6, 22) for minute in (0, 15, 30, 45))
FLAG = (True, False)
TOPICS: dict[str, tuple[tuple[str, Any, str], ...]] = {
    "shipment": (
        ("shipment_code", CODES, "The papers carry the code {}."),
        ("sender", NAMES, "It was sent by {}."),
        ("origin", TOWNS, "The lorry left from {}."),
        ("goods", [*GOODS], "On board are {}."),
        ("weight_kg", 90.0, "The scales showed {} kg."),
        ("boxes", range(2, 60), "There are {} boxes."),
        ("pickup_time", TIMES, "The driver called at {}."),
        ("insured", FLAG, "The load is insured.|Nobody insured the load."),
    ),
    "workshop": (
        ("title", CODES, "The workshop is called {}."),
        ("teacher", NAMES, "{} teaches it."),
        ("town", TOWNS, "It takes place in {}."),
        ("seats", range(6, 40), "The room has {} seats."),
        ("fee_euro", 80.0, "A place costs {} euro."),
        ("starts_at", TIMES, "Doors open at {}."),
        ("guests", [*NAMES], "The guests are {}."),
        ("online", FLAG, "One can follow it online.|There is no way to follow it online."),
    ),
    "machine": (
        ("model", CODES, "The plate says {}."),
        ("owner", NAMES, "It belongs to {}."),
        ("site", TOWNS, "It stands in the hall at {}."),
        ("spare_parts", [*GOODS], "Its cupboard holds {}."),
        ("power_kw", 50.0, "It draws {} kW."),
        ("year_built", range(1962, 2024), "It was built in {}."),
        ("last_check", TIMES, "Today's check began at {}."),
        ("running", FLAG, "At the moment it runs.|At the moment it stands still."),
    ),
}  # fmt: skip
"""Field, what its values are drawn from (one of a tuple or a range, some of a list, a decimal up to a number), and the
sentence that says it; for a flag the sentence when it holds, "|", the one when it does not."""


class Record(NamedTuple):
    values: dict[str, Any]
    schema: dict[str, Any]
    text: str


def make_records(
    rng: Random, topic: str, count: int = 1, *, is_flat: bool = False, may_hide: bool = False
) -> list[Record]:
    """Make records of the same fields.

    Args:
        is_flat: without lists and objects inside.
        may_hide: a field of text may be null, and then the text is silent about it.
    """
    fields = [field for field in TOPICS[topic] if not (is_flat and isinstance(field[1], list))]
    chosen = sorted(rng.sample(fields, rng.randint(3, len(fields))), key=fields.index)
    nested = [name for name, *_ in chosen[len(chosen) // 2 :]] if not is_flat and rng.random() < 0.5 else []
    return [_make_record(rng, chosen, nested, may_hide) for _ in range(count)]


def object_of(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that has all of these properties and no other."""
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _make_record(rng: Random, fields: list[Any], nested: list[str], may_hide: bool) -> Record:
    values: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    sentences = []
    for name, source, sentence in fields:
        value = _draw(rng, source)
        properties[name] = _schema_of(value, may_hide)
        is_hidden = may_hide and isinstance(value, str) and rng.random() < 0.25
        values[name] = None if is_hidden else value
        if not is_hidden:
            sentences.append(_say(sentence, value))
    if nested:
        values["details"] = {name: values.pop(name) for name in nested}
        properties["details"] = object_of({name: properties.pop(name) for name in nested})
    rng.shuffle(sentences)
    return Record(values, object_of(properties), " ".join(sentences))


def _draw(rng: Random, source: Any) -> Any:
    if isinstance(source, float):
        return round(rng.randint(1, int(source)) + rng.randint(1, 9) / 10, 1)
    return rng.sample(source, rng.randint(2, 4)) if isinstance(source, list) else rng.choice(source)


def _schema_of(value: Any, may_hide: bool) -> dict[str, Any]:
    if isinstance(value, list):
        return {"type": "array", "items": {"type": "string"}, "minItems": 1}
    if isinstance(value, str):
        return {"type": ["string", "null"] if may_hide else "string"}
    return {"type": {bool: "boolean", int: "integer", float: "number"}[type(value)]}


def _say(sentence: str, value: Any) -> str:
    if isinstance(value, bool):
        return sentence.split("|")[not value]
    return sentence.format(f"{', '.join(value[:-1])} and {value[-1]}" if isinstance(value, list) else value)
