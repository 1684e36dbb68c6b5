"""How the office's tools search: text as regular expressions, dates in several forms, results in pages."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from gymrail import ToolError
from gymrail.tables import Row

_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m", "%m/%d/%Y", "%B %d, %Y", "%d %B %Y")
"""Of dates that are not ISO's: one-digit hours, months, American and written dates."""
_COSTLY = re.compile(r"\)\s*[*+?{]|\\[1-9]|\(\?P=")
"""A repeated group, or a reference to one: what makes a search take for ever."""
_PLAIN = re.compile(r"[\w\s@.,:'/-]*", re.ASCII)


def matching(rows: Iterable[Row], text: str, *columns: str) -> Iterator[Row]:
    """Yield the rows of which one of the columns holds the text, a regular expression, in any case.

    Raises:
        ToolError: the expression could run away.
        re.error: it is none.
    """
    holds = _matcher(text)
    return (row for row in rows if any(row[column] and holds(row[column]) for column in columns))


def having(rows: list[Row], parts: Mapping[str, str]) -> list[Row]:
    """Return the rows whose columns hold all texts that are given."""
    for column, text in parts.items():
        rows = list(matching(rows, text, column)) if text else rows
    return rows


def page_of(name: str, rows: list[Row], page: int, page_size: int) -> Any:
    """Return one page of the rows, the nearest there is, and what it is one of."""
    total = len(rows)
    pages = (total + page_size - 1) // page_size
    page = max(1, min(page, pages)) if pages > 0 else 1
    start = (page - 1) * page_size
    counts = {f"total_{name}": total, "page": page, "page_size": page_size, "total_pages": pages}
    shown = rows[start : min(start + page_size, total)]
    return {name: shown, "pagination": counts} if rows else f"No {name} found."


@functools.lru_cache(maxsize=4096)
def moment(text: str) -> datetime:
    """Read a date, with or without a time; a time zone is left out of account.

    Raises:
        ValueError: it is no date.
    """
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text.strip()).replace(tzinfo=None)
    for form in _FORMATS:
        with contextlib.suppress(ValueError):
            return datetime.strptime(text.strip(), form)
    raise ValueError(f"Unknown datetime string format, unable to parse: {text}")


def _matcher(text: str) -> Callable[[str], Any]:
    if len(re.findall(r"[*+?{|]", text)) > 3 or _COSTLY.search(text):
        raise ToolError(f"the search text {text!r} repeats too much; search for plain words")
    pattern = re.compile(text, re.IGNORECASE)
    if not _PLAIN.fullmatch(text):
        return pattern.search
    # Plain words are found ten times faster as such; a dot stands for any character.
    word = max(text.lower().split("."), key=len)
    if "." not in text:
        return lambda value: word in value.lower()
    return lambda value: word in value.lower() and pattern.search(value)
