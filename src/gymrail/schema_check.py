"""A structural check of tool schemas against JSON Schema draft 2020-12: the keywords that tools use, their types,
their references."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_SCHEMA_MAPS = ("properties", "$defs", "patternProperties", "dependentSchemas")
_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = (
    "items",
    "additionalProperties",
    "not",
    "contains",
    "propertyNames",
    "if",
    "then",
    "else",
    "unevaluatedProperties",
)
_TEXTS = ("title", "description", "pattern", "format", "$ref", "$comment")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def schema_problems(parameters: Any) -> list[str]:
    """Return what is wrong with the schema of a tool's arguments; an empty list when it is valid and describes an
    object."""
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        return ["the parameters must be a schema of type 'object'"]
    return list(_problems(parameters, "parameters", parameters))


def _problems(schema: Any, path: str, root: dict[str, Any]) -> Iterator[str]:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield f"{path} is {schema!r}; a schema is an object or a boolean"
        return
    yield from _keyword_problems(schema, path, root)
    for key in _SCHEMA_MAPS:
        parts = schema.get(key, {})
        if not isinstance(parts, dict):
            yield f"{path}.{key} must be an object of schemas"
            continue
        for name, part in parts.items():
            yield from _problems(part, f"{path}.{name}", root)
    for key in _SCHEMA_LISTS:
        if key not in schema:
            continue
        if not isinstance(schema[key], list) or not schema[key]:
            yield f"{path}.{key} must be a list of schemas with at least one"
            continue
        for index, part in enumerate(schema[key]):
            yield from _problems(part, f"{path}.{key}[{index}]", root)
    for key in _SCHEMAS:
        if key in schema:
            yield from _problems(schema[key], f"{path}.{key}", root)


def _keyword_problems(schema: dict[str, Any], path: str, root: dict[str, Any]) -> Iterator[str]:
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    unknown = [kind for kind in kinds if kind not in _TYPES]
    if unknown:
        yield f"{path}.type is {unknown[0]!r}; allowed: {', '.join(sorted(_TYPES))}"
    for key in _TEXTS:
        if not isinstance(schema.get(key, ""), str):
            yield f"{path}.{key} must be text"
    for key in _COUNTS:
        value = schema.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            yield f"{path}.{key} must be a whole number of at least 0"
    for key in _NUMBERS:
        if isinstance(schema.get(key, 0), bool) or not isinstance(schema.get(key, 0), int | float):
            yield f"{path}.{key} must be a number"
    if "enum" in schema and not isinstance(schema["enum"], list):
        yield f"{path}.enum must be a list"
    yield from _required_problems(schema, path)
    reference = schema.get("$ref")
    if isinstance(reference, str) and not _resolves(reference, root):
        yield f"{path}.$ref {reference!r} leads nowhere"


def _required_problems(schema: dict[str, Any], path: str) -> Iterator[str]:
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        yield f"{path}.required must be a list of names"
        return
    if len(set(required)) != len(required):
        yield f"{path}.required names a property twice"
    missing = [name for name in required if name not in schema.get("properties", {})]
    if missing:
        yield f"{path}.required names {missing[0]!r}, which is no property"


def _resolves(reference: str, root: dict[str, Any]) -> bool:
    if not re.match(r"#(/|$)", reference):
        return False
    place: Any = root
    for part in reference.split("/")[1:]:
        if not isinstance(place, dict) or part not in place:
            return False
        place = place[part]
    return True
