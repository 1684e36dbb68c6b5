"""A curriculum's memory of one member: which tasks were measured, and which of them wait to be played again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gymrail.data.member_tasks import Finite, Generated
from gymrail.data.mixing import Curriculum
from gymrail.data.mixture import Group


class TaskQueue:
    """Chooses a member's next task by the pass rates so far. Deterministic: equal histories choose equal tasks."""

    def __init__(self, tasks: Generated | Finite, curriculum: Curriculum) -> None:
        self._tasks = tasks
        self._curriculum = curriculum
        self._measured: dict[int, list[float]] = {}
        """By task: decayed sum of the pass rates, decayed count, step of the last one, how often in a row it was out of
        the band. A generator's tasks that left the band are forgotten; they do not come again."""
        self._queue: dict[int, int] = {}
        """Tasks in the order in which they came, and how many draws there had been then."""
        self._playing: set[int] = set()
        self._barren_step: int | None = None
        """The step at which no task was due, until something is observed; it saves a search for each draw."""
        self._drawn = 0
        self._choices = 0
        """Draws that the queue could have served, and how many of them were fresh all the same."""
        self._fresh = 0

    def choose(self, place: int, step: int, *, is_refill: bool = False) -> tuple[int, int]:
        """Return the next task, and the place in the member's stream that comes after it; a refill comes from the queue
        while a task there has rested."""
        self._drawn += 1
        is_open = self._has_rested()
        self._choices += is_open and not is_refill
        if not is_open or (not is_refill and self._fresh < self._curriculum.fresh * self._choices):
            found = self._next_fresh(place, step)
            if found is not None:
                self._fresh += is_open and not is_refill
                self._playing.add(found[0])
                return found
        if self._queue:
            task_index = self._leave()
            self._playing.add(task_index)
            return task_index, place
        # Every task of the dataset is out of the band or being played: the stream goes on as it would without us.
        task_index, _ = self._tasks.at(place)
        return task_index, place + 1

    def observe(self, group: Group, rewards: Sequence[float], step: int) -> None:
        """Take in what a task's group earned; nothing where no rollout of it has a reward."""
        task_index, pass_rate = group.task_index, _pass_rate(group, rewards)
        self._playing.discard(task_index)
        self._barren_step = None
        known = self._measured.get(task_index)
        if pass_rate is not None:
            total, count, _, misses = known or (0.0, 0.0, 0, 0)
            known = self._measured[task_index] = [total / 2 + pass_rate, count / 2 + 1, step, misses]
            known[3] = 0 if self.knows(task_index) else misses + 1
        if known is None or task_index in self._queue:
            return
        if self.knows(task_index):
            self._queue[task_index] = self._drawn
            if len(self._queue) > self._curriculum.queue:
                self._forget(self._leave())
        else:
            self._forget(task_index)

    def knows(self, task_index: int) -> bool:
        """Tell whether a task was measured within the band."""
        known = self._measured.get(task_index)
        low, high = self._curriculum.band
        return known is not None and low <= known[0] / known[1] <= high

    def described(self, group: Group) -> Group:
        """Return a group with what is known about it."""
        return replace(group, is_known=True) if self.knows(group.task_index) else group

    def state(self) -> dict[str, Any]:
        measured = [[task_index, *values] for task_index, values in self._measured.items()]
        return {
            "measured": measured,
            "queue": [*self._queue.items()],
            "drawn": self._drawn,
            "fresh": [self._fresh, self._choices],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._measured = {int(task_index): values for task_index, *values in state["measured"]}
        self._queue = dict(state["queue"])
        self._drawn, (self._fresh, self._choices) = state["drawn"], state["fresh"]
        self._playing, self._barren_step = set(), None

    def _next_fresh(self, place: int, step: int) -> tuple[int, int] | None:
        """The stream's next task that is due; None when none of the dataset's is."""
        if self._barren_step == step:
            return None
        # Two epochs' worth of places: from the middle of one, the next has what was shuffled to its end.
        for offset in range(2 * (self._tasks.size or 1)):
            task_index, _ = self._tasks.at(place + offset)
            if task_index in self._playing or task_index in self._queue:
                continue
            known = self._measured.get(task_index)
            if known is None or step - known[2] >= self._wait(known[3]):
                return task_index, place + offset + 1
        self._barren_step = step
        return None

    def _has_rested(self) -> bool:
        """Whether the task that waited longest has been away for long enough."""
        return bool(self._queue) and self._drawn - next(iter(self._queue.values())) > self._curriculum.rest

    def _leave(self) -> int:
        """Take out the task that waited longest."""
        task_index = next(iter(self._queue))
        del self._queue[task_index]
        return task_index

    def _wait(self, misses: float) -> float:
        """Steps until a task is measured again: twice as many each time that it was out of the band in a row."""
        return self._curriculum.refresh_steps * 2 ** max(0, misses - 1)

    def _forget(self, task_index: int) -> None:
        if self._tasks.size is None:
            self._measured.pop(task_index, None)


def _pass_rate(group: Group, rewards: Sequence[float]) -> float | None:
    if not rewards:
        return None
    low, high = group.spec.reward_range
    mean = math.fsum(rewards) / len(rewards)
    return min(1.0, max(0.0, (mean - low) / (high - low))) if high > low else 0.0
