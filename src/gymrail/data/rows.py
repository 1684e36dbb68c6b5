"""Rows as they stand in files: read one by one, with every mistake in its place; nothing is raised for a bad row.

for found in read_raw(path):
    if isinstance(found, Problem): ...      # the file, the line, the field, the value, what is wrong
    else: found.values                      # the row
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from gymrail.data.jsonl import open_binary, parse_line, reason_of
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

_BOM = b"\xef\xbb\xbf"
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_NINETEEN = b"0" * 19
"""From here on a whole number may not fit into 64 bits, where orjson makes a float of it."""
_LONG_NUMBER = re.compile(rb"[:\[,\s-]\d{19}")
"""The same outside of strings, or so; slow, and asked only where the first look found one."""
_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one row."""

    file: str
    line: int
    message: str
    field: str | None = None
    value: Any = None

    def __str__(self) -> str:
        field = f"field '{self.field}': " if self.field else ""
        return f"{self.file}, line {self.line}: {field}{self.message}"

    def to_json(self) -> dict[str, Any]:
        """The problem as JSON; a long value is shortened."""
        return asdict(self) | {"value": _shortened(self.value)}


class RawRow(NamedTuple):
    """One row of a file."""

    file: str
    line: int
    text: bytes | None
    """The line as it stands in the file, without its end; None where the source is no text file."""
    values: dict[str, Any]

    def problem(self, message: str, field: str | None = None, value: Any = None) -> Problem:
        """Say what is wrong with this row."""
        return Problem(self.file, self.line, message, field, value)


def read_raw(path: Path) -> Iterator[RawRow | Problem]:
    """Yield the rows of a JSONL file (`.jsonl`, `.jsonl.gz`), or what is wrong with a line; blank lines are skipped.

    Raises:
        InputError: the file itself cannot be read.
    """
    name = str(path)
    try:
        with open_binary(path) as lines:
            for number, line in enumerate(lines, start=1):
                if number == 1:
                    line = line.removeprefix(_BOM)
                text = line.strip()
                if text:
                    yield _parse(text, path, name, number)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"Cannot read '{path}': {reason_of(error)}.") from None


def dump_row(values: Mapping[str, Any]) -> bytes:
    """Write a row as one line without its end; whole numbers of any size stay what they are."""
    try:
        return orjson.dumps(values)
    except TypeError:
        return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()


def dump_sorted(values: Mapping[str, Any]) -> bytes:
    """Write a row with its keys sorted, at every depth, so that equal rows give equal bytes."""
    try:
        return orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


class RowCheck:
    """Holds rows against an environment's task type."""

    def __init__(self, spec: EnvironmentSpec, *, needs_input: bool = True) -> None:
        self._spec = spec
        self._type: type[Task] = spec.cls.task_type
        self._needs_input = needs_input

    def problems(self, row: RawRow, values: Mapping[str, Any]) -> list[Problem]:
        """Return what is wrong with a row whose values are these; of a good row nothing."""
        try:
            task = self._type.model_validate(values)
        except ValidationError as error:
            return [_describe(row, problem) for problem in error.errors()]
        parameters = task.responses_create_params
        if self._needs_input and "input" not in parameters:
            return [
                row.problem(
                    "has no 'input'; write the prompt there, or make it from the row's fields: --prompt FILE.yaml",
                    "responses_create_params",
                    parameters,
                )
            ]
        if task.offered_tools is not None:
            try:
                self._spec.offered(task)
            except InputError as error:
                return [row.problem(str(error), "responses_create_params.tools", parameters["tools"])]
        return []


def _parse(text: bytes, path: Path, name: str, number: int) -> RawRow | Problem:
    try:
        values = parse_line(text, path, number)
        if _NINETEEN in text.translate(_DIGITS) and _LONG_NUMBER.search(text):
            values = json.loads(text)
    except InputError as error:
        message = str(error).removeprefix(f"{path}, line {number}: ")
        return Problem(name, number, message, None, text[:_SHOWN].decode("utf-8", "replace"))
    except ValueError as error:  # Python refuses numbers of more than a few thousand digits
        return Problem(name, number, f"holds a number that is too long: {error}")
    return RawRow(name, number, text, values)


def _describe(row: RawRow, problem: Any) -> Problem:
    field = ".".join(str(part) for part in problem["loc"]) or "row"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return row.problem(message, field)
    text = repr(problem["input"])
    return row.problem(f"{message} (value {_cut(text)})", field, problem["input"])


def _shortened(value: Any) -> Any:
    text = repr(value)
    return value if len(text) <= _SHOWN else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
