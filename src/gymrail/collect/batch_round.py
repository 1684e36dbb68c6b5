"""The episodes of a batch that are waited for together: until all are over, or until those that are left are late."""

from __future__ import annotations

import asyncio
import math

from gymrail.data.mixing import Late


class Round:
    """Episodes that are waited for together, and the moment from which they are not."""

    def __init__(self, late: Late | None, *, cancels: bool) -> None:
        """
        Args:
            cancels: end what is late, instead of leaving it to be played on.
        """
        self._late = late
        self._cancels = cancels
        self._open = 0
        self._all_over = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._cut_tasks: set[asyncio.Task[None]] = set()
        self._over = 0
        self._started_at = asyncio.get_running_loop().time()

    @property
    def names(self) -> set[str]:
        return set(self._tasks.values())

    def add(self, task: asyncio.Task[None], name: str) -> None:
        self._tasks[task] = name
        self._open += 1
        task.add_done_callback(self._count)

    async def wait(self, deadlines: dict[str, float]) -> set[str]:
        """Wait for all but the late ones, and return the environments of those."""
        loop = asyncio.get_running_loop()
        self._timers += [loop.call_at(at, self._cut, name) for name, at in deadlines.items()]
        over = False
        try:
            if self._tasks:
                await self._all_over.wait()
            over = True
        finally:
            for timer in self._timers:
                timer.cancel()
            for task in self._tasks:
                if not over or task not in self._cut_tasks:
                    task.cancel()
        cancelled = [task for task in self._tasks if task.done() and task.cancelled() and task not in self._cut_tasks]
        for task in self._tasks:
            # A failing task cancelled the others: its own error says more than theirs.
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        if cancelled:
            raise asyncio.CancelledError
        return {self._tasks[task] for task in self._cut_tasks if task.cancelled() or not task.done()}

    def _count(self, task: asyncio.Task[None]) -> None:
        if task in self._cut_tasks and not self._cancels:
            return
        self._leave()
        if task in self._cut_tasks:
            return
        if task.cancelled() or task.exception() is not None:
            for other in self._tasks:
                other.cancel()
            return
        self._over += 1
        late = self._late
        if late is not None and self._over == math.ceil(late.quorum * len(self._tasks)):
            loop = asyncio.get_running_loop()
            seconds = (loop.time() - self._started_at) * late.patience
            self._timers.append(loop.call_at(self._started_at + seconds, self._cut, None))

    def _cut(self, name: str | None) -> None:
        late = {task for task, owner in self._tasks.items() if not task.done() and name in (None, owner)}
        self._cut_tasks |= late
        for task in late:
            if self._cancels:
                task.cancel()
            else:
                self._leave()

    def _leave(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._all_over.set()
