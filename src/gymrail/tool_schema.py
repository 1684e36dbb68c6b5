"""What a tool's JSON Schema goes through after pydantic wrote it: titles dropped, rewritten for OpenAI's strict mode
where that is possible, and told in words to a model that got its arguments wrong."""

from __future__ import annotations

from typing import Any


def tidy(schema: Any, is_name_map: bool = False) -> Any:
    """Drop pydantic's generated titles, which cost prompt tokens and say nothing; properties named "title" stay."""
    if isinstance(schema, list):
        return [tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value
        if not is_name_map and key in _VALUES
        else tidy(value, not is_name_map and key in ("properties", "$defs"))
        for key, value in schema.items()
        if is_name_map or key != "title"
    }


def strict_if_possible(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Rewrite a schema for OpenAI's strict mode: every object closed, every property required. A default of None
    becomes a required nullable property, which means the same; any other default, or a free-form object, has no strict
    form and stays as it is."""
    schema.setdefault("properties", {})
    schema.setdefault("required", [])
    definitions = schema.get("$defs", {})
    if not all(_can_be_strict(part) for part in (schema, *definitions.values())):
        return schema, False
    strict = _make_strict(schema, definitions)
    used = {name: _make_strict(part, definitions) for name, part in definitions.items()}
    while stale := [name for name in used if not _refers(strict, name) and not _refers({**used, name: None}, name)]:
        for name in stale:
            del used[name]
    return ({**strict, "$defs": used} if used else strict), True


_VALUES = ("default", "const", "enum", "examples")
"""Keywords whose value is data and no schema."""
_STRICT_KEYWORDS = frozenset(
    {
        "$defs", "$ref", "additionalProperties", "anyOf", "const", "default", "description", "enum",
        "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maximum", "minItems", "minimum",
        "multipleOf", "pattern", "properties", "required", "type",
    }
)  # fmt: skip
_STRICT_FORMATS = frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"})


def _can_be_strict(schema: Any) -> bool:
    if not isinstance(schema, dict) or schema.get("default") is not None or not schema.keys() <= _STRICT_KEYWORDS:
        return False
    if schema.get("format", "date") not in _STRICT_FORMATS or "(?" in schema.get("pattern", ""):
        return False
    if schema.get("type") == "object" and (
        "properties" not in schema or schema.get("additionalProperties") not in (None, False)
    ):
        return False
    if schema.get("type") == "array" and not schema.get("items"):
        return False
    children = (
        *schema.get("properties", {}).values(),
        *schema.get("anyOf", ()),
        *([schema["items"]] if "items" in schema else ()),
    )
    return any(key in schema for key in ("type", "$ref", "anyOf")) and all(_can_be_strict(child) for child in children)


def _make_strict(schema: dict[str, Any], definitions: dict[str, Any], inlined: tuple[str, ...] = ()) -> dict[str, Any]:
    beside = {key: value for key, value in schema.items() if key not in ("$defs", "default", "$ref")}
    if "$ref" in schema:
        # Strict mode takes no keyword beside a `$ref`, such as the argument's own description: the definition is
        # written out there.
        name = schema["$ref"].rsplit("/", 1)[-1]
        if not beside or name in inlined:
            return {"$ref": schema["$ref"]}
        return _make_strict({**definitions[name], **beside}, definitions, (*inlined, name))
    if "properties" in beside:
        beside["properties"] = {
            name: _make_strict(part, definitions, inlined) for name, part in beside["properties"].items()
        }
    if "anyOf" in beside:
        beside["anyOf"] = [_make_strict(part, definitions, inlined) for part in beside["anyOf"]]
    if "items" in beside:
        beside["items"] = _make_strict(beside["items"], definitions, inlined)
    if "properties" in beside:
        beside["additionalProperties"] = False
        beside["required"] = list(beside["properties"])
    return beside


def _refers(schema: Any, name: str) -> bool:
    if isinstance(schema, dict):
        return schema.get("$ref") == f"#/$defs/{name}" or any(_refers(part, name) for part in schema.values())
    return isinstance(schema, list) and any(_refers(part, name) for part in schema)


def describe_type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    if "anyOf" in schema:
        return " or ".join(describe_type(option, definitions) for option in schema["anyOf"])
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return describe_type(definitions[name], {}) if "enum" in definitions.get(name, ()) else name
    if schema.get("type") == "array" and schema.get("items"):
        return f"array of {describe_type(schema['items'], definitions)}"
    return str(schema.get("type", "any"))
