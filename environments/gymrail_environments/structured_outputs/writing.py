"""Writing values in each format, for the gold policy."""

from __future__ import annotations

import csv
import io
import json
from typing import Any
from xml.sax.saxutils import escape

import yaml

from gymrail.verifiers.structured_text import SchemaType

ROOT = "record"


def write(kind: SchemaType, value: Any) -> str:
    """Return a value as text of a format; for XML under the root element `record`."""
    if kind == "json":
        return json.dumps(value, ensure_ascii=False)
    if kind == "yaml":
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    if kind == "xml":
        return _xml(ROOT, value)
    if kind == "toml":
        return _toml(value)
    return _csv(value if isinstance(value, list) else [value])


def _xml(tag: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"<{tag}>{''.join(_xml(name, inside) for name, inside in value.items())}</{tag}>"
    if isinstance(value, list):
        return f"<{tag}>{''.join(_xml('item', inside) for inside in value)}</{tag}>"
    if isinstance(value, bool):
        value = str(value).lower()
    return f"<{tag}/>" if value is None else f"<{tag}>{escape(str(value))}</{tag}>"


def _toml(value: dict[str, Any]) -> str:
    return "\n".join(f"{json.dumps(name)} = {_toml_value(inside)}" for name, inside in value.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml_value(inside)}" for name, inside in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
