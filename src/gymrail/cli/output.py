"""What commands write: JSON documents and tables on stdout."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 160
"""Columns where the output is no terminal: wide enough for grep to find a row in one line."""


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    import orjson

    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    sys.stdout.write(text.decode() + "\n")


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr as it is now, so that tests and pipes are served too."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False)


def table(*headers: str, right: tuple[str, ...] = (), fixed: tuple[str, ...] = ()) -> Table:
    """Return an empty table; columns in `right` are numbers, those in `fixed` are never wrapped."""
    from rich import box
    from rich.table import Table

    built = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for header in headers:
        built.add_column(
            header,
            justify="right" if header in right else "left",
            no_wrap=header in fixed or header in right,
            overflow="fold",
        )
    return built


def number(value: float | None) -> str:
    """Write a number in few characters; None and NaN as a dash."""
    if value is None or value != value:
        return "-"
    if abs(value) >= 10 and float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}" if 0 < abs(value) < 0.01 else f"{value:.3f}"


def show_warnings(library: str = "gymrail") -> None:
    """Send a library's warnings to stderr, each kind a few times."""
    logger = logging.getLogger(library)
    for handler in [handler for handler in logger.handlers if isinstance(handler, _Warnings)]:
        logger.removeHandler(handler)
    logger.addHandler(_Warnings(logging.WARNING))


class _Warnings(logging.Handler):
    """A dead endpoint warns once per rollout; a thousand lines say no more than the first few."""

    limit = 3

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.seen: Counter[object] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.seen[record.msg] += 1
        if self.seen[record.msg] <= self.limit:
            more = " (More of these are not shown.)" if self.seen[record.msg] == self.limit else ""
            sys.stderr.write(f"Warning: {record.getMessage()}{more}\n")
