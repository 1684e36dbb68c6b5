"""What model-written code may take, and what became of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from gymrail.errors import InputError

Stop = Literal["timeout", "cpu", "memory", "output", "killed"]
"""Why code was stopped before its end: its wall time, its CPU time, the memory of all its processes, its output, or the
end of its process in any other way (it killed itself, it crashed)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may take; memory, processes and files belong to the sandbox as a whole."""

    wall_seconds: float = 10.0
    """Of one call. An interpreter is interrupted then; what does not stop a second later is killed."""
    cpu_seconds: float = 10.0
    """Of one call, all processes together."""
    memory_bytes: int = 512 * 1024**2
    """Address space of each process (kernel), and resident memory of all together (looked at several times a
    second)."""
    processes: int = 16
    """Processes and threads beside the first, at a time."""
    output_bytes: int = 64 * 1024
    """Of standard output, of standard error and of a value, each; the rest is cut off."""
    file_bytes: int = 16 * 1024**2
    """Of one file; the private folder holds four times as much. It is memory."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InputError(f"The sandbox limit {entry.name} is {value!r}; it must be a number above 0.")


@dataclass(frozen=True, slots=True)
class Execution:
    """What a piece of code did. All of it comes from code that nobody trusts: it is text, and no more."""

    stdout: str = ""
    stderr: str = ""
    value: str | None = None
    """`repr` of the last expression; of a function call, its result as JSON."""
    error: str | None = None
    """The traceback, or why it was stopped; None when it ran to its end."""
    stopped: Stop | None = None
    exit_code: int | None = None
    """Of a program; None in an interpreter, and where there was none."""
    is_restarted: bool = False
    """The interpreter was lost: its variables are gone, and the next call has a fresh one."""
    seconds: float = 0.0
    """Wall time, waiting for a free place not counted."""

    @property
    def is_ok(self) -> bool:
        return self.error is None
