"""How a run ends early in good order: no new job is taken, what is being played is finished and recorded.

    drain = Drain()
    await collect(jobs, model, drain=drain)      # elsewhere on the same loop: drain.request("the budget is spent")

What was not begun is not counted, so a resumed run plays it.
"""

from __future__ import annotations

import asyncio


class Drain:
    """A run's wish to end early. One per run, shared by everything that may ask for it (Ctrl-C, a budget)."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """Of the first request; None before one."""
        self._requested = asyncio.Event()

    def request(self, reason: str) -> None:
        """Take no new job from now on; call it on the run's event loop. Later reasons are not kept."""
        if self.reason is None:
            self.reason = reason
            self._requested.set()

    @property
    def is_requested(self) -> bool:
        return self.reason is not None

    async def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait for a request, so long at most; return whether there is one."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._requested.wait()
        except TimeoutError:
            pass
        return self.is_requested
