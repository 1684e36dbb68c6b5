"""What an episode left behind, compared with what a row expects: files of a folder, rows of an SQLite database.

    file_problems(folder, {"done.txt": "yes", "draft.txt": None, "log.txt": {"contains": "saved"}})
    row_problems(folder / "shop.db", [{"query": "SELECT name FROM orders", "rows": [["Ada"]]}])

Covers: links that lead out of the folder (they count as missing), files too large to be the expected one, queries that
run on, a database that is none.
Does not cover: an author's own query that is wrong; that is a failure of the verifier, and no score.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gymrail.errors import VerifierError

MAX_BYTES = 16 << 20
"""A larger file is not read."""
QUERY_SECONDS = 10.0
_STEPS = 10_000


def file_problems(
    folder: Path,
    expected: Mapping[str, Any],
    *,
    seeded: Mapping[str, str] | None = None,
    ignored: Sequence[str] = (),
) -> list[str]:
    """Say which files are not as expected, one line each.

    Args:
        expected: relative path -> its text (blanks at the end do not count), None for a file that must not be there,
            or one of `{"contains": text}`, `{"regex": pattern}` and `{"json": value}`.
        seeded: where given, no file may be there beyond those expected and these, which must be as they were.
        ignored: patterns of files that may be there all the same, such as `*.log`.

    Raises:
        VerifierError: `expected` cannot be understood.
    """
    problems = [problem for name, wanted in expected.items() if (problem := _file_problem(folder, name, wanted))]
    if seeded is None:
        return problems
    for name, text in seeded.items():
        if name not in expected and (problem := _file_problem(folder, name, text)):
            problems.append(problem)
    there = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    known = (*expected, *seeded)
    more = (name for name in there if name not in known and not any(fnmatchcase(name, glob) for glob in ignored))
    return problems + [f"{name!r} should not be there" for name in more]


def row_problems(database: Path, expected: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which queries do not return what is expected, one line each. Rows are compared without order, unless the
    entry says `ordered: true`.

    Raises:
        VerifierError: an entry has no query, or its query is wrong.
    """
    if not database.is_file():
        return [f"there is no database '{database.name}'"]
    problems = []
    for entry in expected:
        query, wanted = entry.get("query"), entry.get("rows")
        if not isinstance(query, str) or not isinstance(wanted, list):
            raise VerifierError(f"expected_rows has {dict(entry)!r}; each entry has a 'query' and its 'rows'.")
        try:
            found = _select(database, query)
        except sqlite3.DatabaseError as error:
            if "no such table" in str(error) or "no such column" in str(error) or "not a database" in str(error):
                problems.append(f"{query}: {error}")  # the agent dropped or never made it
                continue
            raise VerifierError(f"The query {query!r} cannot be run: {error}") from None
        rows = [list(row) for row in wanted]
        if not entry.get("ordered"):
            found, rows = sorted(found, key=repr), sorted(rows, key=repr)
        if found != rows:
            problems.append(f"{query}: {_short(found)}, not {_short(rows)}")
    return problems


def run_script(database: Path, script: str) -> None:
    """Run SQL on a database, which is made where there is none.

    Raises:
        VerifierError: the script is wrong.
    """
    connection = sqlite3.connect(database)
    try:
        connection.executescript(script)
        connection.commit()
    except sqlite3.DatabaseError as error:
        raise VerifierError(f"setup_sql cannot be run: {error}") from None
    finally:
        connection.close()


def _file_problem(folder: Path, name: str, wanted: Any) -> str | None:
    path, root = (folder / name).resolve(), folder.resolve()
    if not Path(name).parts or Path(name).is_absolute() or ".." in Path(name).parts:
        raise VerifierError(f"expected_files names {name!r}; give a path inside the folder.")
    is_there = path.is_relative_to(root) and path.is_file()
    if wanted is None:
        return f"{name!r} should not be there" if is_there or (folder / name).is_symlink() else None
    if not is_there:
        return f"{name!r} is missing"
    size = path.stat().st_size
    if size > MAX_BYTES:
        return f"{name!r} has {size} bytes, too many to be read"
    text = path.read_bytes().decode("utf-8", "replace")
    return None if _is_text(text, wanted, name) else f"{name!r} holds {_short(text)}, not {_short(wanted)}"


def _is_text(text: str, wanted: Any, name: str) -> bool:
    if isinstance(wanted, str):
        return text.rstrip() == wanted.rstrip()
    if isinstance(wanted, Mapping) and len(wanted) == 1:
        (kind, value), *_ = wanted.items()
        if kind == "contains":
            return str(value) in text
        if kind == "regex":
            return re.search(str(value), text) is not None
        if kind == "json":
            try:
                return json.loads(text) == value
            except ValueError:
                return False
    raise VerifierError(
        f"expected_files has {wanted!r} for {name!r}; allowed are a text, null, and one of contains, regex and json."
    )


def _select(database: Path, query: str) -> list[list[Any]]:
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
    try:
        deadline = time.monotonic() + QUERY_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        return [list(row) for row in connection.execute(query)]
    finally:
        connection.close()


def _short(value: object, limit: int = 160) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
