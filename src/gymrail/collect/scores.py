"""The rewards of many tasks: means with intervals that count tasks, k attempts, majority votes, spread within groups.

Kept is a little per task, and a few numbers per rollout in flat arrays.
"""

from __future__ import annotations

import math
import statistics
from array import array
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gymrail.collect.estimators import average_at_k, described, majority_at_k, pass_at_k, pass_hat_k
from gymrail.rollout import Rollout

ANSWER = "extracted_answer"
"""The verdict metric that votes in majority@k; None is no answer."""

_CHANCE = (0.0, 1.0)
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

    def task_means(self) -> list[float]:
        values: dict[int, list[float]] = defaultdict(list)
        for task, value in zip(self.tasks, self.values, strict=True):
            values[task].append(value)
        return [statistics.fmean(mine) for mine in values.values()]


@dataclass(slots=True)
class Scores:
    """The rewards, reward components and numeric verdict metrics of the rollouts that have a reward."""

    tasks: dict[tuple[str, int, str], TaskRewards] = field(default_factory=dict)
    _numbers: dict[tuple[str, int, str], int] = field(default_factory=dict)
    _rewards: _Column = field(default_factory=_Column)
    _repeats: array[int] = field(default_factory=lambda: array("q"))
    _answers: dict[int, list[tuple[int, Hashable | None, float]]] = field(default_factory=dict)
    """By task: repeat, answer, reward; of rollouts whose verdict has `ANSWER`."""
    _measures: dict[str, _Column] = field(default_factory=dict)
    is_binary: bool = True

    def add(self, rollout: Rollout) -> None:
        """Count a rollout that has a reward."""
        reward = rollout.reward
        assert reward is not None, "what has no reward is counted elsewhere"
        key = rollout.task_key
        task = self.tasks.get(key)
        if task is None:
            self._numbers[key] = len(self.tasks)
            task = self.tasks[key] = TaskRewards()
        task.add(reward)
        self.is_binary = self.is_binary and reward in (0.0, 1.0)
        number = self._numbers[key]
        self._rewards.add(number, reward)
        self._repeats.append(rollout.repeat)
        if ANSWER in rollout.metrics:
            answer = rollout.metrics[ANSWER]
            vote = answer if answer is None or isinstance(answer, str) else repr(answer)
            self._answers.setdefault(number, []).append((rollout.repeat, vote, reward))
        for values in (rollout.reward_components, rollout.metrics):
            for name, value in values.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    self._measures.setdefault(name, _Column()).add(number, value)

    def merge(self, other: Scores) -> None:
        """Add another environment's scores; tasks of two environments are never the same."""
        offset = len(self.tasks)
        self.tasks.update(other.tasks)
        self._numbers.update((key, number + offset) for key, number in other._numbers.items())
        self._rewards.extend(other._rewards, offset)
        self._repeats.extend(other._repeats)
        self._answers.update((number + offset, list(votes)) for number, votes in other._answers.items())
        for name, column in other._measures.items():
            self._measures.setdefault(name, _Column()).extend(column, offset)
        self.is_binary = self.is_binary and other.is_binary

    def reward(self) -> dict[str, float | None]:
        """The mean over tasks of each task's mean, its interval, and the spread of the tasks' means."""
        means = [task.mean for task in self.tasks.values()]
        return {
            **described(means),
            "std": statistics.stdev(means) if len(means) > 1 else None,
            "min": min((task.low for task in self.tasks.values()), default=None),
            "max": max((task.high for task in self.tasks.values()), default=None),
        }

    def attempts(self) -> dict[str, dict[str, Any]]:
        """`pass@k` and `pass^k` (rewards of 0 and 1 only), `avg@k`, `majority@k` (where verdicts name an answer).

        Each for k = 1, 2, 4, ... and the largest: the mean over the tasks with at least k rewards, its interval, and
        how many tasks those are. The first k are those with the lowest repeats.
        """
        counts = [(task.count, task.successes) for task in self.tasks.values()]
        sizes = [count for count, _ in counts]
        found: dict[str, dict[str, Any]] = {"pass@k": {}, "pass^k": {}}
        if self.is_binary:
            for name, estimate in (("pass@k", pass_at_k), ("pass^k", pass_hat_k)):
                found[name] = _by_k(sizes, lambda k, task, of=estimate: of(*counts[task], k), _CHANCE)
        firsts = self._in_order_of_repeats()
        found["avg@k"] = _by_k(sizes, lambda k, task: average_at_k(firsts[task], k))
        votes = [sorted(mine, key=lambda vote: vote[0]) for mine in self._answers.values()]
        answers = [[answer for _, answer, _ in mine] for mine in votes]
        scores = [[score for _, _, score in mine] for mine in votes]
        found["majority@k"] = _by_k(
            [len(mine) for mine in votes], lambda k, task: majority_at_k(answers[task], scores[task], k)
        )
        return found

    def no_answer_share(self) -> float | None:
        """The share of rollouts without an answer; None where verdicts name none."""
        answers = [answer for votes in self._answers.values() for _, answer, _ in votes]
        return sum(answer is None for answer in answers) / len(answers) if answers else None

    def measures(self) -> dict[str, dict[str, float | None]]:
        """Each reward component and numeric verdict metric: mean over tasks and interval, as the reward's."""
        return {name: described(column.task_means()) for name, column in sorted(self._measures.items())}

    def groups(self) -> dict[str, Any]:
        """Tasks with several rewards; one whose rewards are all equal teaches a group-relative learner nothing.

        `by_pass_rate` has the number of groups and their mean standard deviation per range of pass rates; a range has
        its upper end, but for 1, which stands alone.
        """
        groups = [task for task in self.tasks.values() if task.count > 1]
        flat = sum(task.low == task.high for task in groups)
        by_rate: dict[str, list[float]] = {}
        for task in groups:
            by_rate.setdefault(_pass_rate_range(task.pass_rate), []).append(task.std or 0.0)
        return {
            "count": len(groups),
            "zero_spread": flat,
            "zero_spread_share": flat / len(groups) if groups else None,
            "by_pass_rate": {
                name: {"count": len(by_rate[name]), "std": statistics.fmean(by_rate[name])}
                for name in _PASS_RATES
                if name in by_rate
            },
        }

    def _in_order_of_repeats(self) -> list[list[float]]:
        found: list[list[float]] = [[] for _ in self.tasks]
        tasks, values = self._rewards.tasks, self._rewards.values
        for place in sorted(range(len(values)), key=self._repeats.__getitem__):
            found[tasks[place]].append(values[place])
        return found


def _by_k(
    sizes: list[int], estimate: Callable[[int, int], float], bounds: tuple[float, float] = (-math.inf, math.inf)
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
