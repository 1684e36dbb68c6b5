"""Structured answers: parsed, validated against a JSON Schema, and held against expected values.

    verifier = SchemaAdherence()
    schema_str = '{"type": "object", "properties": {"born": {"type": "integer"}}}'
    verdict = await verifier('{"born": 1815}', schema_str=schema_str)      # Verdict(reward=1.0, ...)

The rules are those of NeMo Gym's `structured_outputs`: the schema is read strictly (every property of every object is
required, no other is allowed), formats such as `date` are not checked, and an answer in a code fence is no JSON. What
it does otherwise, and why, is in docs/differences.md.

Patterns of a schema run against what a model wrote, so each has a bounded number of steps; `$ref` reaches nothing but
the schema itself.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, get_args

from gymrail.errors import InputError, did_you_mean
from gymrail.rollout import Verdict
from gymrail.verifiers.structured_text import SchemaType, Unreadable, need, read, without_fence

SCHEMA_TYPES: tuple[str, ...] = get_args(SchemaType)
_SHOWN_FAULTS = 3
_SOUGHT_FAULTS = 20
_BACKTRACKS = 100_000
_LONG = 20_000
"""Characters beyond which an answer is read in a thread."""


class Fault(NamedTuple):
    """One thing that is wrong with an answer."""

    path: str
    """Where, such as `$.people[1].age`."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True, slots=True)
class SchemaAdherence:
    """Reward 1 when an answer is in the format, fits the schema and has the expected values, otherwise 0."""

    allow_fence: bool = False
    """Whether an answer may stand in a Markdown code fence."""
    is_strict: bool = True
    """Whether every property is required and no other allowed, whatever the schema says."""

    async def __call__(
        self,
        answer: str,
        /,
        *,
        schema_str: str,
        schema_type: SchemaType = "json",
        expected_values: Any = None,
        **fields: Any,
    ) -> Verdict:
        """Judge a text.

        Raises:
            InputError: the schema is none, or `schema_type` is unknown.
        """
        if len(answer) <= _LONG:
            return self.judge(answer, schema_str, schema_type, expected_values)
        return await asyncio.to_thread(self.judge, answer, schema_str, schema_type, expected_values)

    def judge(
        self, answer: str, schema_str: str, schema_type: SchemaType = "json", expected_values: Any = None
    ) -> Verdict:
        """Judge a text, at once."""
        check_schema_type(schema_type)
        schema = parse_schema(schema_str, is_strict=self.is_strict)
        if not answer.strip():
            return _wrong("empty", "the answer is empty")
        try:
            value = read(schema_type, without_fence(answer) if self.allow_fence else answer, schema)
        except Unreadable as error:
            return _wrong("unreadable", str(error))
        return self.judge_value(value, schema_str, expected_values)

    def judge_value(self, value: Any, schema_str: str, expected_values: Any = None) -> Verdict:
        """Judge what was read already, such as the arguments of a tool call."""
        wrong = faults(value, schema_str, is_strict=self.is_strict)
        if wrong:
            return _wrong("invalid", _listed(wrong))
        unlike = differences(value, expected_values) if expected_values is not None else []
        if unlike:
            return _wrong("unexpected", _listed(unlike))
        return Verdict(1.0, metrics={"error_type": None})


def faults(value: Any, schema_str: str, *, is_strict: bool = True) -> list[Fault]:
    """Return where a value does not fit a schema, the first twenty places; an empty list when it does."""
    try:
        errors = list(itertools.islice(_validator(schema_str, is_strict).iter_errors(value), _SOUGHT_FAULTS))
    except (ValueError, TypeError) as error:  # text that is no Unicode
        return [Fault("$", str(error))]
    return [Fault(path_of(error.instance_path), _shorten(error.message)) for error in errors]


def differences(value: Any, expected: Any, path: str = "$") -> list[Fault]:
    """Return where a value is not as expected. Of objects the expected keys count, lists count whole and in order;
    numbers are compared as numbers, text without the blanks around it."""
    if isinstance(expected, Mapping):
        if not isinstance(value, Mapping):
            return [Fault(path, f"{_shorten(repr(value))} is no object")]
        missing = [Fault(path, f"{name!r} is missing") for name in expected if name not in value]
        present = [name for name in expected if name in value]
        inside = (differences(value[name], expected[name], f"{path}.{name}") for name in present)
        return [*missing, *(fault for found in inside for fault in found)]
    if isinstance(expected, list):
        if not isinstance(value, list) or len(value) != len(expected):
            return [Fault(path, f"{_shorten(repr(value))} is no list of {len(expected)}")]
        pairs = enumerate(zip(value, expected, strict=True))
        return [fault for index, (one, two) in pairs for fault in differences(one, two, f"{path}[{index}]")]
    if _is_equal(value, expected):
        return []
    return [Fault(path, f"{_shorten(repr(value))} is not what is expected")]


def parse_schema(schema_str: str, *, is_strict: bool = True) -> dict[str, Any]:
    """Return a row's schema.

    Raises:
        InputError: it is no JSON, or no schema.
    """
    _validator(schema_str, is_strict)
    return _parsed(schema_str, is_strict)


def check_schema_type(schema_type: str) -> None:
    """Refuse a format that there is no parser for."""
    if schema_type not in SCHEMA_TYPES:
        raise InputError(f"schema_type is {schema_type!r}. {did_you_mean(str(schema_type), SCHEMA_TYPES)}")


def strict(schema: Any) -> Any:
    """Return a schema in which every property is required and no other is allowed, at every level that keywords reach
    without `anyOf` and its like."""
    if not isinstance(schema, dict):
        return schema
    made = {
        name: {key: strict(inside) for key, inside in part.items()}
        if name in ("properties", "$defs", "definitions") and isinstance(part, dict)
        else part
        if name in ("enum", "const", "default", "examples")
        else strict(part)
        for name, part in schema.items()
    }
    if isinstance(made.get("properties"), dict):
        made |= {"required": list(made["properties"]), "additionalProperties": False}
    return made


def path_of(parts: list[str | int]) -> str:
    """Write a place in a value, such as `$.people[1].age`."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


@functools.lru_cache(maxsize=1024)
def _parsed(schema_str: str, is_strict: bool) -> dict[str, Any]:
    try:
        schema = json.loads(schema_str)
    except ValueError as error:
        raise InputError(f"schema_str is {_shorten(schema_str)}; it must be the JSON of a schema ({error}).") from None
    if not isinstance(schema, dict):
        raise InputError(f"schema_str is {_shorten(schema_str)}; it must be the JSON of a schema, an object.")
    return strict(schema) if is_strict else schema


@functools.lru_cache(maxsize=1024)
def _validator(schema_str: str, is_strict: bool) -> Any:
    rules = need("jsonschema_rs", "jsonschema-rs")
    schema = _parsed(schema_str, is_strict)
    try:
        return rules.Draft202012Validator(
            schema,
            validate_formats=False,
            retriever=_refuse_reference,
            pattern_options=rules.FancyRegexOptions(backtrack_limit=_BACKTRACKS),
        )
    except (rules.ValidationError, rules.ReferencingError, ValueError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise InputError(
            f"schema_str {_shorten(schema_str)} is no valid JSON Schema: {_shorten(reason, 400)}."
        ) from None


def _refuse_reference(uri: str) -> NoReturn:
    raise ValueError(f"the schema refers to {uri!r}, and only references within itself are followed")


def _is_equal(value: Any, expected: Any) -> bool:
    if isinstance(value, str) and isinstance(expected, str):
        return value.strip() == expected.strip()
    is_flag = isinstance(value, bool), isinstance(expected, bool)
    return is_flag[0] == is_flag[1] and value == expected


def _listed(wrong: list[Fault]) -> str:
    more = f" (and {len(wrong) - _SHOWN_FAULTS} more)" if len(wrong) > _SHOWN_FAULTS else ""
    return "; ".join(map(str, wrong[:_SHOWN_FAULTS])) + more


def _wrong(kind: str, reason: str) -> Verdict:
    return Verdict(0.0, metrics={"error_type": kind}, reason=_shorten(reason, 400))


def _shorten(value: Any, limit: int = 160) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
