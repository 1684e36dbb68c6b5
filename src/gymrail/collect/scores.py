"""The rewards of many tasks: means with intervals that count tasks, k attempts, majority votes, spread within groups.

Kept are a few numbers per rollout in flat arrays, and each answer once.
"""

from __future__ import annotations

import math
import statistics
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gymrail.collect.done import TaskNumbers
from gymrail.collect.estimators import average_at_k, described, majority_at_k, pass_at_k, pass_hat_k
from gymrail.rollout import Rollout

ANSWER = "extracted_answer"
"""The verdict metric that votes in majority@k; None is no answer."""

_CHANCE = (0.0, 1.0)
_ANYWHERE = (-math.inf, math.inf)
_NO_ANSWER = -1.0
_PASS_RATES = ("0", "0-0.25", "0.25-0.5", "0.5-0.75", "0.75-1", "1")


@dataclass(slots=True)
class TaskRewards:
    """The rewards of one task's rollouts."""

    count: int = 0
    successes: int = 0
    """Rewards of exactly 1."""
    low: float = math.inf
    high: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0
    """Sum of the squared distances from the mean."""

    def add(self, reward: float) -> None:
        self.count += 1
        self.successes += reward == 1.0
        self.low = min(self.low, reward)
        self.high = max(self.high, reward)
        step = reward - self.mean
        self.mean += step / self.count
        self.squares += step * (reward - self.mean)

    @property
    def pass_rate(self) -> float:
        return self.successes / self.count

    @property
    def std(self) -> float | None:
        """The sample's standard deviation; None of one reward."""
        if self.count < 2:
            return None
        return math.sqrt(max(self.squares, 0.0) / (self.count - 1)) if self.low < self.high else 0.0


@dataclass(slots=True)
class _Column:
    """One number per rollout, beside the number of its task."""

    tasks: array[int] = field(default_factory=lambda: array("I"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, task: int, value: float) -> None:
        self.tasks.append(task)
        self.values.append(value)

    def extend(self, other: _Column, offset: int) -> None:
        self.tasks.extend(task + offset for task in other.tasks)
        self.values.extend(other.values)

    def by_task(self, tasks: int, repeats: array[int] | None = None) -> _Groups:
        """Put each task's values together: as they came or, given the repeats, in the order of those."""
        return _Groups.of(self.tasks, self.values, tasks, repeats)


@dataclass(frozen=True, slots=True)
class _Groups:
    """The numbers of all tasks in one array, task by task."""

    starts: array[int]
    """By task; the last entry is where the last task ends."""
    values: array[float]

    @classmethod
    def of(cls, tasks: array[int], values: array[float], count: int, repeats: array[int] | None) -> _Groups:
        starts = array("q", bytes(8 * (count + 1)))
        for task in tasks:
            starts[task + 1] += 1
        for task in range(count):
            starts[task + 1] += starts[task]
        free = starts[:]
        grouped = values[:]
        places = range(len(values))
        for place in places if repeats is None else sorted(places, key=repeats.__getitem__):
            task = tasks[place]
            grouped[free[task]] = values[place]
            free[task] += 1
        return cls(starts, grouped)

    def size(self, task: int) -> int:
        return self.starts[task + 1] - self.starts[task]

    def first(self, task: int, k: int | None = None) -> array[float]:
        """The task's first `k` values, or all."""
        start, end = self.starts[task], self.starts[task + 1]
        return self.values[start : end if k is None else min(end, start + k)]

    def __iter__(self) -> Iterator[array[float]]:
        return (self.first(task) for task in range(len(self.starts) - 1))


@dataclass(slots=True)
class Scores:
    """The rewards, reward components and numeric verdict metrics of one environment's rollouts that have a reward."""

    is_binary: bool = True
    _numbers: TaskNumbers = field(default_factory=TaskNumbers)
    _tasks: int = 0
    _rewards: _Column = field(default_factory=_Column)
    _repeats: array[int] = field(default_factory=lambda: array("q"))
    _votes: _Column = field(default_factory=_Column)
    """Which answer, by number, -1 for none; of rollouts whose verdict has `ANSWER`."""
    _vote_rewards: array[float] = field(default_factory=lambda: array("d"))
    _vote_repeats: array[int] = field(default_factory=lambda: array("q"))
    _answers: dict[str, int] = field(default_factory=dict)
    """The numbers of the answers."""
    _measures: dict[str, _Column] = field(default_factory=dict)

    @property
    def task_count(self) -> int:
        return self._tasks

    def add(self, rollout: Rollout) -> None:
        """Count a rollout that has a reward."""
        reward = rollout.reward
        assert reward is not None, "what has no reward is counted elsewhere"
        _, task_index, task_id = rollout.task_key
        number = self._numbers.of(task_index, task_id)
        self._tasks = self._numbers.count
        self.is_binary = self.is_binary and reward in (0.0, 1.0)
        self._rewards.add(number, reward)
        self._repeats.append(rollout.repeat)
        if ANSWER in rollout.metrics:
            self._votes.add(number, self._answer(rollout.metrics[ANSWER]))
            self._vote_rewards.append(reward)
            self._vote_repeats.append(rollout.repeat)
        for values in (rollout.reward_components, rollout.metrics):
            for name, value in values.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    column = self._measures.get(name)
                    if column is None:
                        column = self._measures[name] = _Column()
                    column.add(number, value)

    def merge(self, other: Scores) -> None:
        """Add another environment's scores, to be read only from here on: tasks of two environments are never the
        same."""
        offset = self._tasks
        self._tasks += other._tasks
        self._rewards.extend(other._rewards, offset)
        self._repeats.extend(other._repeats)
        votes = {
            number: self._answers.setdefault(answer, len(self._answers)) for answer, number in other._answers.items()
        }
        self._votes.tasks.extend(task + offset for task in other._votes.tasks)
        self._votes.values.extend(votes.get(int(vote), -1) for vote in other._votes.values)
        self._vote_rewards.extend(other._vote_rewards)
        self._vote_repeats.extend(other._vote_repeats)
        for name, column in other._measures.items():
            self._measures.setdefault(name, _Column()).extend(column, offset)
        self.is_binary = self.is_binary and other.is_binary

    def reward(self) -> dict[str, float | None]:
        """The mean over tasks of each task's mean, its interval, and the spread of the tasks' means."""
        means = [rewards[0] if len(rewards) == 1 else _rewards_of(rewards).mean for rewards in self._by_task()]
        return {
            **described(means, self._bounds),
            "std": statistics.stdev(means) if len(means) > 1 else None,
            "min": min(self._rewards.values, default=None),
            "max": max(self._rewards.values, default=None),
        }

    def attempts(self) -> dict[str, dict[str, Any]]:
        """`pass@k` and `pass^k` (rewards of 0 and 1 only), `avg@k`, `majority@k` (where verdicts name an answer).

        Each for k = 1, 2, 4, ... and the largest: the mean over the tasks with at least k rewards, its interval, and
        how many tasks those are. The first k are those with the lowest repeats.
        """
        rewards = self._rewards.by_task(self._tasks, self._repeats)
        sizes = [rewards.size(task) for task in range(self._tasks)]
        found: dict[str, dict[str, Any]] = {"pass@k": {}, "pass^k": {}}
        if self.is_binary:
            wins = [group.count(1.0) for group in rewards]
            for name, estimate in (("pass@k", pass_at_k), ("pass^k", pass_hat_k)):
                found[name] = _by_k(sizes, lambda k, task, of=estimate: of(sizes[task], wins[task], k), _CHANCE)
        found["avg@k"] = _by_k(sizes, lambda k, task: average_at_k(rewards.first(task, k), k), self._bounds)
        found["majority@k"] = self._majority()
        return found

    def no_answer_share(self) -> float | None:
        """The share of rollouts without an answer; None where verdicts name none."""
        votes = self._votes.values
        return votes.count(_NO_ANSWER) / len(votes) if votes else None

    def measures(self) -> dict[str, dict[str, float | None]]:
        """Each reward component and numeric verdict metric: mean over tasks and interval, as the reward's."""
        return {
            name: described([statistics.fmean(mine) for mine in column.by_task(self._tasks) if mine])
            for name, column in sorted(self._measures.items())
        }

    def groups(self) -> dict[str, Any]:
        """Tasks with several rewards; one whose rewards are all equal teaches a group-relative learner nothing.

        `by_pass_rate` has the number of groups and their mean standard deviation per range of pass rates; a range has
        its upper end, but for 1, which stands alone.
        """
        count = flat = 0
        by_rate: dict[str, list[float]] = {}
        for rewards in self._by_task():
            if len(rewards) > 1:
                task = _rewards_of(rewards)
                count += 1
                flat += task.low == task.high
                by_rate.setdefault(_pass_rate_range(task.pass_rate), []).append(task.std or 0.0)
        return {
            "count": count,
            "zero_spread": flat,
            "zero_spread_share": flat / count if count else None,
            "by_pass_rate": {
                name: {"count": len(by_rate[name]), "std": statistics.fmean(by_rate[name])}
                for name in _PASS_RATES
                if name in by_rate
            },
        }

    @property
    def _bounds(self) -> tuple[float, float]:
        """Where a mean reward can lie at all: two tasks would else say that a pass rate may be -2."""
        return _CHANCE if self.is_binary else _ANYWHERE

    def _by_task(self) -> Iterable[array[float]]:
        return self._rewards.by_task(self._tasks)

    def _majority(self) -> dict[str, dict[str, Any]]:
        votes = self._votes.by_task(self._tasks, self._vote_repeats)
        scores = _Groups.of(self._votes.tasks, self._vote_rewards, self._tasks, self._vote_repeats)
        voted = [task for task in range(self._tasks) if votes.size(task)]

        def estimate(k: int, place: int) -> float:
            answers = [None if vote == _NO_ANSWER else vote for vote in votes.first(voted[place], k)]
            return majority_at_k(answers, scores.first(voted[place], k), k)

        return _by_k([votes.size(task) for task in voted], estimate)

    def _answer(self, answer: Any) -> float:
        if answer is None:
            return _NO_ANSWER
        text = answer if isinstance(answer, str) else repr(answer)
        return self._answers.setdefault(text, len(self._answers))


def _rewards_of(rewards: Iterable[float]) -> TaskRewards:
    task = TaskRewards()
    for reward in rewards:
        task.add(reward)
    return task


def _by_k(
    sizes: list[int], estimate: Callable[[int, int], float], bounds: tuple[float, float] = _ANYWHERE
) -> dict[str, dict[str, Any]]:
    rows = {}
    for k in _powers_of_two_and(max(sizes, default=0)):
        values = [estimate(k, task) for task, size in enumerate(sizes) if size >= k]
        rows[str(k)] = {**described(values, bounds), "tasks": len(values)}
    return rows


def _powers_of_two_and(most: int) -> Iterator[int]:
    k = 1
    while k < most:
        yield k
        k *= 2
    if most:
        yield most


def _pass_rate_range(rate: float) -> str:
    if rate in (0.0, 1.0):
        return _PASS_RATES[int(rate) * 5]
    return _PASS_RATES[math.ceil(rate * 4)]
