"""A curriculum's memory of one member: which tasks were measured, and which of them wait to be played again."""

from __future__ import annotations

from typing import Any

from gymrail.data.member_tasks import Finite, Generated
from gymrail.data.mixing import Curriculum


class TaskQueue:
    """Chooses a member's next task by the pass rates so far. Deterministic: equal histories choose equal tasks."""

    def __init__(self, tasks: Generated | Finite, curriculum: Curriculum) -> None:
        self._tasks = tasks
        self._curriculum = curriculum
        self._measured: dict[int, list[float]] = {}
        """By task: decayed sum of the pass rates, decayed count, step of the last one. A generator's tasks that left
        the band are forgotten; they do not come again."""
        self._queue: list[int] = []
        self._playing: set[int] = set()
        self._drawn = 0
        self._fresh = 0

    def choose(self, place: int, step: int) -> tuple[int, int]:
        """Return the next task, and the place in the member's stream that comes after it."""
        self._drawn += 1
        if not self._queue or self._fresh < self._curriculum.fresh * self._drawn:
            found = self._next_fresh(place, step)
            if found is not None:
                self._fresh += 1
                self._playing.add(found[0])
                return found
        if self._queue:
            task_index = self._queue.pop(0)
            self._playing.add(task_index)
            return task_index, place
        # Every task of the dataset is out of the band or being played: the stream goes on as it would without us.
        task_index, _ = self._tasks.at(place)
        return task_index, place + 1

    def observe(self, task_index: int, pass_rate: float | None, step: int) -> None:
        """Take in what a task's group earned; None where no rollout of it has a reward."""
        self._playing.discard(task_index)
        known = self._measured.get(task_index)
        if pass_rate is not None:
            total, count = (known[0], known[1]) if known else (0.0, 0.0)
            known = self._measured[task_index] = [total / 2 + pass_rate, count / 2 + 1, step]
        if known is None or task_index in self._queue:
            return
        low, high = self._curriculum.band
        if low <= known[0] / known[1] <= high:
            self._queue.append(task_index)
            if len(self._queue) > self._curriculum.queue:
                self._forget(self._queue.pop(0))
        else:
            self._forget(task_index)

    @property
    def waiting(self) -> int:
        """How many tasks are in the queue."""
        return len(self._queue)

    def state(self) -> dict[str, Any]:
        measured = [[task_index, *values] for task_index, values in self._measured.items()]
        return {"measured": measured, "queue": self._queue, "drawn": self._drawn, "fresh": self._fresh}

    def restore(self, state: dict[str, Any]) -> None:
        self._measured = {int(task_index): values for task_index, *values in state["measured"]}
        self._queue, self._drawn, self._fresh = list(state["queue"]), state["drawn"], state["fresh"]
        self._playing = set()

    def _next_fresh(self, place: int, step: int) -> tuple[int, int] | None:
        """The stream's next task that is due; None when an epoch of it has none."""
        size = self._tasks.size
        for offset in range(size or 1):
            task_index, _ = self._tasks.at(place + offset)
            if task_index in self._playing or task_index in self._queue:
                continue
            known = self._measured.get(task_index)
            if known is None or step - known[2] >= self._curriculum.refresh_steps:
                return task_index, place + offset + 1
        return None

    def _forget(self, task_index: int) -> None:
        if self._tasks.size is None:
            self._measured.pop(task_index, None)
