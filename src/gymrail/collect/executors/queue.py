"""Which job a worker gets next, and what becomes of the jobs of a worker that was lost.

Jobs come from a stream that is read only as far as there is room. A lost worker's jobs are played again: any of them
may have killed it, so few of them share a worker the second time, and each has one to itself the third time. A job that
kills its worker every time is thereby found, and no other is blamed for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gymrail.collect.drain import Drain
from gymrail.collect.runner import Job
from gymrail.errors import Failure, GymrailError
from gymrail.rollout import Rollout

MAX_LOSSES = 3
"""So many workers may be lost with a job; then it has failed."""
_ALONE = MAX_LOSSES - 1


@dataclass(slots=True)
class Ticket:
    """A job with what happened to it on the way."""

    number: int
    job: Job
    lost: tuple[str, ...] = ()
    """Of each worker that was lost while it had the job, why."""

    @property
    def losses(self) -> int:
        return len(self.lost)


class Queue:
    """The jobs of a run that no worker has."""

    def __init__(self, jobs: Iterator[Job], drain: Drain) -> None:
        self.error: GymrailError | None = None
        """Why the stream had no next job; what is being played is finished all the same."""
        self._jobs = jobs
        self._drain = drain
        self._again: deque[Ticket] = deque()
        self._alone: deque[Ticket] = deque()
        self._alone_at: int | None = None
        """The worker that plays those."""
        self._is_exhausted = False
        self._number = 0

    @property
    def is_empty(self) -> bool:
        return (self._is_exhausted or self._drain.is_requested) and not self._again and not self._alone

    def take(self, worker: int, held: dict[int, Ticket], slots: int, ahead: int) -> list[Ticket]:
        """Return the jobs that a worker gets beside those it has: `slots` to play, `ahead` to wait their turn."""
        if self._drain.is_requested:
            return []
        if self._alone and self._alone_at is None:
            self._alone_at = worker
        if self._alone_at == worker:
            if held:
                return []
            if self._alone:
                return [self._alone.popleft()]
            self._alone_at = None
        room = slots + ahead - len(held)
        taken: list[Ticket] = []
        if self._again:
            company = max(1, slots // 4) - sum(ticket.losses > 0 for ticket in held.values())
            while self._again and len(taken) < min(room, company):
                taken.append(self._again.popleft())
        while len(taken) < room and (ticket := self._next()) is not None:
            taken.append(ticket)
        return taken

    def put_back(self, worker: int, lost: list[Ticket], reason: str = "unknown") -> list[Ticket]:
        """Take a lost worker's jobs back; return those that have failed.

        Args:
            reason: why it was lost.
        """
        if self._alone_at == worker:
            self._alone_at = None
        failed = []
        for ticket in lost:
            ticket.lost = (*ticket.lost, reason)
            if ticket.losses >= MAX_LOSSES:
                failed.append(ticket)
            else:
                (self._alone if ticket.losses == _ALONE else self._again).append(ticket)
        return failed

    def clear(self) -> int:
        """Drop what was to be played again; return how many jobs that is."""
        dropped = len(self._again) + len(self._alone)
        self._again.clear()
        self._alone.clear()
        return dropped

    def _next(self) -> Ticket | None:
        if self._is_exhausted:
            return None
        try:
            job = next(self._jobs, None)
        except GymrailError as error:
            self.error, job = error, None
        if job is None:
            self._is_exhausted = True
            return None
        self._number += 1
        return Ticket(self._number, job)


def add_losses(rollout: Rollout, lost: Sequence[str]) -> None:
    """Count workers that were lost while they had a rollout as its first attempts."""
    if lost:
        rollout.attempt += len(lost)
        losses = (Failure("infrastructure", "seed", f"the worker that had it was lost ({reason})") for reason in lost)
        rollout.earlier_failures = [*losses, *rollout.earlier_failures]
