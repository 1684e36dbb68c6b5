"""Tasks that were profiled by `gymrail profile`, chosen and weighed by their pass rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from gymrail.data.jsonl import read_rows
from gymrail.errors import InputError
from gymrail.task import Task

PROFILE = "_profile"
"""The field of a row that holds the task's statistics."""


class ProfiledTask(NamedTuple):
    """A task, and how it fared."""

    task: Task
    pass_rate: float
    rollouts: int | None
    """How many the rate is of; None where the profile does not say it."""


def read_profiled(
    path: Path, task_type: type[Task], environment: str, pass_rate: tuple[float, float]
) -> list[ProfiledTask]:
    """Return an environment's tasks from a profile, in its order, whose pass rate lies within the two bounds.

    Raises:
        InputError: the file cannot be read, has a row without a profile, or has no such task.
    """
    low, high = pass_rate
    found, rates = [], []
    for number, row in read_rows(path):
        statistics = row.get(PROFILE)
        if not isinstance(statistics, dict) or not _is_share(statistics.get("pass_rate")):
            raise InputError(f"{path}, line {number}: no pass rate; `gymrail profile RUN -o {path}` writes profiles.")
        count = statistics.get("count")
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise InputError(f"{path}, line {number}: the profile's count is {count!r}; it is a number of rollouts.")
        if statistics.get("environment") not in (environment, ""):
            continue
        rates.append(statistics["pass_rate"])
        if low <= rates[-1] <= high:
            task_row = {name: value for name, value in row.items() if name != PROFILE}
            found.append(ProfiledTask(task_type.from_row(task_row, f"{path}, line {number}"), rates[-1], count))
    if not found:
        there = f"its {len(rates)} tasks pass at {min(rates):g} to {max(rates):g}" if rates else "it has none at all"
        raise InputError(f"'{path}' has no task of {environment!r} with a pass rate of {low:g} to {high:g}: {there}.")
    return found


def signal_of(pass_rate: float, count: int) -> float:
    """Return how much a task is expected to teach: p (1 - p), the variance of a reward of 0 or 1.

    A group whose rollouts all earn the same has no advantages, and that variance is what a policy gradient with a group
    baseline learns from (Foster et al., "Learning to Reason at the Frontier of Learnability", arXiv:2502.12272; Bae et
    al., "Online Difficulty Filtering for Reasoning Oriented Reinforcement Learning", arXiv:2504.03380). Of `count`
    rollouts only an estimate of p is known, so this is the expectation of p (1 - p) where every p was as likely before:
    (s + 1) (n - s + 1) / ((n + 2) (n + 3)) after s successes of n. A task that never passed in 4 rollouts may pass in
    the next; in 64 it hardly will, and has almost no weight.
    """
    successes = pass_rate * count
    return (successes + 1) * (count - successes + 1) / ((count + 2) * (count + 3))


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
