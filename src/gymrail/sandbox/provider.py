"""The seam of the sandbox: a provider says how to start the program inside (inside.py), shut off from all else."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gymrail.sandbox.limits import Limits

SCRATCH = "/run/output"
PYTHON_FLAGS = ("-s", "-S", "-P", "-B")
"""No `site`, no user's packages, no unsafe path, no bytecode files. Not `-I`, under which PYTHONHASHSEED does not
count: the same code must print the same set every time."""
ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    # Each thread that allocates reserves 64 MiB of address space for itself otherwise, which the limit counts.
    "MALLOC_ARENA_MAX": "2",
    # Each thread of a linear-algebra library reserves address space too.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""All that code in a sandbox has as its environment."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How one sandbox is started."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    inherited: tuple[int, ...] = ()
    """File descriptors that the command needs; closed here once it runs."""
    folder: str | None = None
    """A private folder on this machine, removed at the end."""
    kill_command: tuple[str, ...] | None = None
    """What ends the sandbox where killing `command` does not."""


class Provider(Protocol):
    """One way to shut code off."""

    name: str
    has_own_processes: bool
    """Whether its processes are children of the command, in a process namespace of their own."""

    def problem(self) -> str | None:
        """Say why it does not work here, and what to do about it; None when it does. May start a process, once."""
        ...

    def launch(self, limits: Limits) -> Launch:
        """Make what starts one sandbox."""
        ...


def inside_command(
    python: str,
    limits: Limits,
    *,
    user: int,
    processes: int,
    owns_pids: bool,
    folder: str,
    scratch: str,
    packages: str = "",
) -> tuple[str, ...]:
    """Return the command that runs the program inside.

    Args:
        user: the number that it takes on for good; 0 leaves it as it is.
        processes: how many the kernel lets that user have, this one included; 0 for no limit.
        owns_pids: whether it may kill every other process that it sees.
        folder: where the code starts.
        scratch: where its output is kept while it runs.
    """
    configuration = {
        "user": user, "memory": limits.memory_bytes, "processes": processes, "file": limits.file_bytes,
        "wall": limits.wall_seconds, "cpu": limits.cpu_seconds, "output": limits.output_bytes,
        "owns_pids": int(owns_pids), "outer_pids": _own_pids(), "folder": folder, "scratch": scratch,
        "packages": packages,
    }  # fmt: skip
    written = ",".join(f"{name}={value}" for name, value in configuration.items())
    return (python, *PYTHON_FLAGS, "-c", _program(), written)


def own_python() -> str:
    """Return this interpreter's real executable, behind a virtual environment's link."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@functools.cache
def _program() -> str:
    """The program inside: of one version for the life of this process, which speaks its language."""
    return Path(__file__).with_name("inside.py").read_text(encoding="utf-8")


def _own_pids() -> int:
    """The process namespace that the program inside must not be in when it kills every process it sees."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
