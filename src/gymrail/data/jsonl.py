"""JSON lines: task rows read with the place of every mistake, rows of any kind written whole or not at all."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson

from gymrail.errors import InputError
from gymrail.task import Task

TaskT = TypeVar("TaskT", bound=Task)

_BOM = b"\xef\xbb\xbf"


def read_tasks(path: Path, task_type: type[TaskT]) -> Iterator[TaskT]:
    """Yield a file's tasks one by one; `.jsonl` and `.jsonl.gz`, blank lines skipped.

    Raises:
        InputError: the file cannot be read, or a row is bad: the file, the line, the field and the value.
    """
    for number, row in read_rows(path):
        yield task_type.from_row(row, f"{path}, line {number}")


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each line that is not blank.

    Raises:
        InputError: the file cannot be read, or a line is no JSON object.
    """
    try:
        with open_binary(path) as lines:
            for number, line in enumerate(lines, start=1):
                if number == 1:
                    line = line.removeprefix(_BOM)
                if not line.isspace():
                    yield number, parse_line(line, path, number)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"Cannot read '{path}': {reason_of(error)}.") from None


def parse_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """Parse one line.

    Raises:
        InputError: it is no JSON object; the text shows where it breaks off and how it begins.
    """
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        hint = (
            " The file is one JSON array; write one object per line."
            if number == 1 and line.lstrip()[:1] == b"["
            else ""
        )
        raise InputError(f"{path}, line {number}: not valid JSON ({error}): {_shorten(line)}.{hint}") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number}: a row must be a JSON object, this is {_shorten(line)}.")
    return row


def write_jsonl(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write rows to a file and return how many; the file appears complete or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    return write_lines((orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows), path)


def write_lines(lines: Iterable[bytes], path: Path) -> int:
    """Write lines, each with its end, as `write_jsonl` writes rows."""
    partial = path.with_name(f".{path.name}.partial")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("wb")
    except OSError as error:
        raise InputError(f"Cannot write '{path}': {reason_of(error)}.") from None
    try:
        with file:
            for line in lines:
                _write(file, line, path)
                count += 1
            _finish(file, path)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _write(file: IO[bytes], line: bytes, path: Path) -> None:
    # Only the writing is guarded: an OSError of whatever makes the rows is not about this file.
    try:
        file.write(line)
    except OSError as error:
        raise InputError(f"Cannot write '{path}': {reason_of(error)}.") from None


def _finish(file: IO[bytes], path: Path) -> None:
    try:
        file.flush()
    except OSError as error:
        raise InputError(f"Cannot write '{path}': {reason_of(error)}.") from None


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading; `.gz` is unpacked on the way."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def reason_of(error: BaseException) -> str:
    """Say in a few words why a file could not be read or written."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _shorten(line: bytes, limit: int = 120) -> str:
    text = line.decode("utf-8", "replace").strip()
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
