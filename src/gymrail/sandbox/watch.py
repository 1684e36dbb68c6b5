"""Adds up what all processes of a sandbox use while code runs, for the kernel limits each process alone.

One look at /proc serves every call that takes longer than a moment, however many there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gymrail.sandbox.limits import Limits, Stop

_TICK_SECONDS = 0.2
_SHARE = 10
"""How many times as long as a look takes it is until the next: looking costs a tenth of a core at most."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(eq=False, slots=True)
class Watched:
    """A call that is looked after."""

    root: int
    limits: Limits
    kill: Callable[[], None]
    cause: Stop | None = None
    """Why it was killed; None while it keeps to its limits."""
    first_cpu_seconds: float | None = None


class _Process(NamedTuple):
    parent: int
    cpu_seconds: float
    resident_bytes: int


class Watch:
    """Looks at running calls now and then, as long as there are any."""

    def __init__(self) -> None:
        self._calls: set[Watched] = set()
        self._looking: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def over(self, root: int, limits: Limits, kill: Callable[[], None]) -> Iterator[Watched]:
        """Look after the process `root` and all below it; past a limit set the cause and call `kill`."""
        call = Watched(root, limits, kill)
        self._calls.add(call)
        if self._looking is None or self._looking.done() or self._looking.get_loop() is not asyncio.get_running_loop():
            self._looking = asyncio.ensure_future(self._look())
        try:
            yield call
        finally:
            self._calls.discard(call)
            if not self._calls and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        pause = _TICK_SECONDS
        while True:
            await asyncio.sleep(pause)
            started = time.monotonic()
            processes = await asyncio.to_thread(_processes)
            pause = max(_TICK_SECONDS, _SHARE * (time.monotonic() - started))
            children: dict[int, list[int]] = {}
            for number, process in processes.items():
                children.setdefault(process.parent, []).append(number)
            for call in list(self._calls):
                if call.cause is None:
                    call.cause = _judge(call, processes, children)
                    if call.cause is not None:
                        call.kill()


def _judge(call: Watched, processes: dict[int, _Process], children: dict[int, list[int]]) -> Stop | None:
    below, waiting = [], [call.root]
    while waiting:
        number = waiting.pop()
        if number in processes:
            below.append(number)
        waiting += children.get(number, ())
    cpu_seconds = sum(processes[number].cpu_seconds for number in below)
    if call.first_cpu_seconds is None:
        call.first_cpu_seconds = cpu_seconds
    if cpu_seconds - call.first_cpu_seconds > call.limits.cpu_seconds:
        return "cpu"
    resident = sum(processes[number].resident_bytes for number in below)
    # Forks share pages, which are counted once only by asking for them one by one.
    if resident > call.limits.memory_bytes and sum(map(_own_share_bytes, below)) > call.limits.memory_bytes:
        return "memory"
    return None


def _processes() -> dict[int, _Process]:
    """Read every process's parent, CPU time (that of children which ended included) and memory."""
    found = {}
    try:
        names = os.listdir("/proc")
    except OSError:  # no Linux
        return found
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The name in parentheses may hold anything; proc_pid_stat(5) counts the rest from there.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:  # it ended
            continue
        ticks = sum(int(field) for field in fields[11:15])
        found[int(name)] = _Process(int(fields[1]), ticks / _TICKS_PER_SECOND, int(fields[21]) * _PAGE)
    return found


def _own_share_bytes(number: int) -> int:
    """Memory of a process, pages that others have too divided by their number; its whole where that is not told."""
    try:
        with open(f"/proc/{number}/smaps_rollup", "rb") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    except (OSError, StopIteration):
        return 0
