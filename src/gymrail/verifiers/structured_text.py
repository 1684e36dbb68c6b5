"""Reading JSON, YAML, XML, TOML and CSV that a model wrote, as data and nothing else.

    read("yaml", "name: Ada\\nborn: 1815", schema)      {"name": "Ada", "born": 1815}

Covers: objects of foreign classes (YAML tags build none), entities and external files (XML), aliases that multiply
(YAML), depth, length, numbers too long to convert, duplicate keys where the format forbids them (TOML).
Does not cover: duplicate keys of JSON and YAML, where the last one counts.

XML and CSV know text alone, so their values are converted as the schema says; what cannot be converted stays text, and
the validation says so.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from types import ModuleType
from typing import Any, Literal, NoReturn
from xml.parsers.expat import ExpatError

import yaml

from gymrail.errors import InputError

SchemaType = Literal["json", "yaml", "xml", "toml", "csv"]
MAX_CHARACTERS = 400_000
MAX_DEPTH = 100
MAX_ALIASES = 10
"""Aliases of a YAML text. Ten can multiply a text by less than a hundred; a "billion laughs" text needs ninety."""
_NOT_JSON = (date, datetime, time, bytes, set)
_FENCE = re.compile(r"\s*```[ \t]*[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


class Unreadable(ValueError):
    """The text is not in the format; the message says why in one line, and it is the reason for reward 0."""


def read(kind: SchemaType, text: str, schema: Mapping[str, Any]) -> Any:
    """Return what a text holds, as JSON values.

    Raises:
        Unreadable: it is not in the format, or over a limit.
    """
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"the answer has {len(text)} characters; at most {MAX_CHARACTERS} are read")
    try:
        value = _READERS[kind](text, schema)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    _check_plain(value)
    return value


def without_fence(text: str) -> str:
    """Return the content of a Markdown code fence that is the whole text; any other text as it is."""
    found = _FENCE.fullmatch(text)
    return found[1] if found else text


def need(module: str, package: str) -> ModuleType:
    """Import a package of the extra `schemas`.

    Raises:
        InputError: it is not installed; the text says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"Schemas need the package {package}: pip install 'gymrail[schemas]'") from None


def _read_json(text: str, schema: Mapping[str, Any]) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise Unreadable(f"no JSON: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _read_yaml(text: str, schema: Mapping[str, Any]) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        aliases = depth = 0
        for event in yaml.parse(text, Loader=loader):
            aliases += isinstance(event, yaml.AliasEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if aliases > MAX_ALIASES:
                raise Unreadable(f"it has more than {MAX_ALIASES} YAML aliases")
            if depth > MAX_DEPTH:
                raise Unreadable("it is nested too deeply")
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise Unreadable(f"no YAML: {' '.join(str(error).split())}") from None
    except Unreadable:
        raise
    except (ValueError, OverflowError, TypeError, AttributeError) as error:  # dates, numbers and keys that are none
        raise Unreadable(f"no YAML: {error}") from None


def _read_xml(text: str, schema: Mapping[str, Any]) -> Any:
    parse = need("xmltodict", "xmltodict").parse
    try:
        value = parse(text.strip(), disable_entities=True)
    except (ExpatError, ValueError) as error:
        raise Unreadable(f"no XML: {error}") from None
    _check_plain(value)
    if isinstance(value, dict) and len(value) == 1:
        # A document has one root; a schema that has no such property describes what is inside it.
        (root, inside), *_ = value.items()
        if root not in schema.get("properties", {}):
            value = inside
    return _typed(value, schema)


def _typed(value: Any, schema: Any) -> Any:
    """XML as the schema's types: `<tags><tag>a</tag></tags>` as a list, an empty element as empty text."""
    if not isinstance(schema, Mapping) or "type" not in schema:
        return value
    kind = schema["type"]
    if kind == "object" and isinstance(value, dict):
        properties = schema.get("properties", {})
        return {name: _typed(item, properties.get(name, {})) for name, item in value.items()}
    if kind == "array":
        if isinstance(value, dict) and len(value) == 1:
            value = next(iter(value.values()))
        items = value if isinstance(value, list) else [] if value is None else [value]
        return [_typed(item, schema.get("items", {})) for item in items]
    if isinstance(kind, list):
        return _typed_option(value, kind)
    return "" if value is None and kind == "string" else _scalar(value, kind)


def _typed_option(value: Any, kinds: list[Any]) -> Any:
    if value is None:
        return None if "null" in kinds or "string" not in kinds else ""
    for kind in kinds:
        converted = _scalar(value, kind)
        if kind == "string" or not isinstance(converted, str):
            return converted
    return value


def _scalar(value: Any, kind: Any) -> Any:
    if not isinstance(value, str) or "_" in value:  # which Python allows between digits
        return value
    try:
        if kind == "integer":
            return int(value)
        if kind == "number":
            number = float(value)
            return number if math.isfinite(number) else value
    except ValueError:
        return value
    if kind == "boolean" and value.lower() in ("true", "1", "false", "0"):
        return value.lower() in ("true", "1")
    return value


def _read_toml(text: str, schema: Mapping[str, Any]) -> Any:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise Unreadable(f"no TOML: {error}") from None


def _read_csv(text: str, schema: Mapping[str, Any]) -> Any:
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise Unreadable(f"no CSV: {error}") from None
    properties = schema.get("items", schema).get("properties", {})
    for number, row in enumerate(rows, 1):
        if None in row:
            raise Unreadable(f"row {number} has more cells than there are columns")
    typed = [{name: _cell(cell, properties.get(name, {})) for name, cell in row.items()} for row in rows]
    if schema.get("type") == "object":
        if len(typed) != 1:
            raise Unreadable(f"the schema describes one row, and there are {len(typed)}")
        return typed[0]
    return typed


def _cell(cell: str | None, schema: Any) -> Any:
    kind = schema.get("type", "string") if isinstance(schema, Mapping) else "string"
    if not cell:
        return None if isinstance(kind, list) and "null" in kind else cell
    return _typed_option(cell, kind) if isinstance(kind, list) else _scalar(cell, kind)


def _check_plain(value: Any) -> None:
    """Refuse what JSON does not have, and what is too deep to walk, without recursion of our own."""
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise Unreadable("it is nested too deeply")
        if isinstance(item, dict):
            for name, inside in item.items():
                if not isinstance(name, str):
                    raise Unreadable(f"the key {name!r} is no text; quote it")
                waiting.append((inside, depth + 1))
        elif isinstance(item, list):
            waiting.extend((inside, depth + 1) for inside in item)
        elif isinstance(item, float) and not math.isfinite(item):
            raise Unreadable(f"{item} is no JSON number")
        elif isinstance(item, _NOT_JSON):
            raise Unreadable(f"{item} is a {type(item).__name__}, which the schema cannot have; quote it")


_READERS: dict[str, Callable[[str, Mapping[str, Any]], Any]] = {
    "json": _read_json,
    "yaml": _read_yaml,
    "xml": _read_xml,
    "toml": _read_toml,
    "csv": _read_csv,
}
