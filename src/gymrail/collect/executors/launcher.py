"""The seam between the pool and what its workers are: processes here, actors on a Ray cluster."""

from __future__ import annotations

from typing import Protocol

from gymrail.errors import InfrastructureError


class WorkerLost(InfrastructureError):
    """A worker is gone; the text says how it ended. What it had is played again."""


class Worker(Protocol):
    """A running worker. Messages are those of `messages`, packed."""

    def give(self, orders: bytes) -> None:
        """Send orders; one that is gone says so at the next `take`."""
        ...

    async def take(self) -> bytes:
        """Wait for its next report.

        Raises:
            WorkerLost: it is gone.
        """
        ...

    async def kill(self) -> None:
        """End it, with whatever it started; safe to call again."""
        ...


class Launcher(Protocol):
    """Starts workers of one kind."""

    async def start(self, setup: bytes, slots: int) -> Worker:
        """Start a worker that plays up to `slots` jobs at once; its first report says whether it can.

        Raises:
            WorkerLost: it could not be started this time.
            GymrailError: none can be started.
        """
        ...

    def close(self) -> None:
        """Give back what all of them shared."""
        ...
