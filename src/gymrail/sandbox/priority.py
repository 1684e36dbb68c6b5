"""The share of the processor that a sandbox has: an equal one, or a ninth of that while its code behaves like a bomb.

covers: Linux with autogroups, where a sandbox is one scheduling group; without them, the processes that a call started.
does not cover: the interpreter itself and its threads, without autogroups.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

_EQUAL, _LOW = 0, 10
"""Of the group, as `nice` counts. At 10 its weight is a ninth of its neighbours' (sched_prio_to_weight in the kernel's
source): two of them on two cores lose a twentieth. Lower, it could not even end in time."""


class Priority:
    """How a sandbox stands to its neighbours. The code inside cannot change it: its /proc is read-only."""

    def __init__(self) -> None:
        self.is_low = False
        self._member = 0

    def lower(self, member: int, started: Iterable[int]) -> None:
        """Give way to others.

        Args:
            member: a process of the sandbox's group that lives as long as the sandbox.
            started: the processes of this call, which end with it, so theirs need not be raised again: only root may.
        """
        if not self.is_low and _set_group(member, _LOW):
            self.is_low, self._member = True, member
        for process in started:
            with contextlib.suppress(OSError):  # it ended, or is not ours
                os.setpriority(os.PRIO_PROCESS, process, 19)

    def restore(self) -> None:
        """Have an equal share again; where the kernel wants a pause between two changes (0.1 s, but for root), `is_low`
        stays, to try again."""
        if self.is_low and _set_group(self._member, _EQUAL):
            self.is_low = False


def _set_group(member: int, nice: int) -> bool:
    try:
        with open(f"/proc/{member}/autogroup", "w", encoding="ascii") as file:
            file.write(str(nice))
    except OSError:
        return False
    return True
