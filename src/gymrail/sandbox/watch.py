"""Adds up what all processes of a sandbox use while code runs, for the kernel limits each process alone; and has a
sandbox whose code behaves like a bomb give way to the others.

One look at /proc serves every call that takes longer than a moment, however many there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gymrail.sandbox.limits import Limits, Stop
from gymrail.sandbox.priority import Priority

_TICK_SECONDS = 0.2
_SHARE = 10
"""How many times as long as a look takes it is until the next: looking costs a tenth of a core at most."""
_OWN_PROCESSES = 3
"""Bubblewrap's two and the interpreter."""
_KERNEL_SECONDS, _KERNEL_SHARE = 0.3, 0.25
"""Of a call's CPU time so much is the kernel's where code forks, writes or takes memory over and over; where it
computes, a hundredth."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(eq=False, slots=True)
class Watched:
    """A call that is looked after."""

    root: int
    limits: Limits
    priority: Priority
    kill: Callable[[], None]
    cause: Stop | None = None
    """Why it was killed; None while it keeps to its limits."""
    started: float = field(default_factory=lambda: time.clock_gettime(_CLOCK))
    """By the clock by which the kernel says when a process started."""
    first: _Time | None = None
    is_bomb: bool = False


class _Time(NamedTuple):
    cpu_seconds: float
    kernel_seconds: float


class _Process(NamedTuple):
    number: int
    parent: int
    time: _Time
    threads: int
    started: float
    resident_bytes: int


class Watch:
    """Looks at running calls now and then, as long as there are any."""

    def __init__(self) -> None:
        self._calls: set[Watched] = set()
        self._looking: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def over(self, root: int, limits: Limits, priority: Priority, kill: Callable[[], None]) -> Iterator[Watched]:
        """Look after the process `root` and all below it; past a limit set the cause and call `kill`."""
        call = Watched(root, limits, priority, kill)
        self._calls.add(call)
        if self._looking is None or self._looking.done() or self._looking.get_loop() is not asyncio.get_running_loop():
            self._looking = asyncio.ensure_future(self._look())
        try:
            yield call
        finally:
            self._calls.discard(call)
            priority.restore()
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
            children: dict[int, list[_Process]] = {}
            for process in processes.values():
                children.setdefault(process.parent, []).append(process)
            for call in list(self._calls):
                if call.cause is None and call.root in processes:
                    _look_after(call, _all_below(processes[call.root], children))


def _look_after(call: Watched, processes: list[_Process]) -> None:
    used = _Time(*map(sum, zip(*(process.time for process in processes), strict=True)))
    call.first = call.first or used
    call.cause = _judge(call, used.cpu_seconds - call.first.cpu_seconds, processes)
    if call.cause is not None:
        call.priority.restore()  # or its end would take long
        call.kill()
        return
    call.is_bomb = call.is_bomb or _is_bomb(call, used, processes)
    age = time.clock_gettime(_CLOCK) - call.started
    if call.is_bomb and age < call.limits.wall_seconds:
        # Right below the root is what the code can neither end nor leave.
        member = processes[min(1, len(processes) - 1)].number
        began = call.started - 1 / _TICKS_PER_SECOND  # the kernel rounds down
        call.priority.lower(member, (process.number for process in processes if process.started > began))
    else:
        call.priority.restore()


def _all_below(root: _Process, children: dict[int, list[_Process]]) -> list[_Process]:
    """A process and all below it, parents first."""
    found = [root]
    for process in found:
        found += children.get(process.number, ())
    return found


def _judge(call: Watched, cpu_seconds: float, processes: list[_Process]) -> Stop | None:
    if cpu_seconds > call.limits.cpu_seconds:
        return "cpu"
    limit = call.limits.memory_bytes
    # Forks share pages, which are counted once only by asking for them one by one.
    if sum(process.resident_bytes for process in processes) > limit and sum(map(_own_share_bytes, processes)) > limit:
        return "memory"
    return None


def _is_bomb(call: Watched, used: _Time, processes: list[_Process]) -> bool:
    """Whether code has as many processes and threads as it may, or keeps the kernel at work."""
    if sum(process.threads for process in processes) >= call.limits.processes + _OWN_PROCESSES:
        return True
    assert call.first is not None
    kernel_seconds = used.kernel_seconds - call.first.kernel_seconds
    return kernel_seconds > max(_KERNEL_SECONDS, _KERNEL_SHARE * (used.cpu_seconds - call.first.cpu_seconds))


def _processes() -> dict[int, _Process]:
    """Read every process's parent, CPU time (that of children which ended included), threads, age and memory."""
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
        user, kernel, childrens_user, childrens_kernel = (int(field) / _TICKS_PER_SECOND for field in fields[11:15])
        kernel += childrens_kernel
        spent = _Time(user + childrens_user + kernel, kernel)
        started = int(fields[19]) / _TICKS_PER_SECOND
        found[int(name)] = _Process(int(name), int(fields[1]), spent, int(fields[17]), started, int(fields[21]) * _PAGE)
    return found


def _own_share_bytes(process: _Process) -> int:
    """Memory of a process, pages that others have too divided by their number; its whole where that is not told."""
    try:
        with open(f"/proc/{process.number}/smaps_rollup", "rb") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    except (OSError, StopIteration):
        return 0
