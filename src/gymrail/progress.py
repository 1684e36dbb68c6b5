"""How a tool tells how far it is: `report_progress(3, 10, "downloading")`, from the event loop or from a thread.

Over MCP the client is told; everywhere else nobody listens, and the call does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Progress(NamedTuple):
    """How far a tool call is."""

    done: float
    total: float | None
    message: str | None


Listener = Callable[[Progress], None]
"""Told of each report, in the thread that reports."""

_listener: ContextVar[Listener | None] = ContextVar("gymrail_progress_listener", default=None)


def report_progress(done: float, total: float | None = None, message: str | None = None) -> None:
    """Tell whoever called the tool how far it is; `done` must grow with each report."""
    listener = _listener.get()
    if listener is not None:
        listener(Progress(done, total, message))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the reports of what is started inside to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
