"""Two runs beside each other: by how much the mean reward changed, and which tasks flipped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gymrail.collect.estimators import Difference, paired_difference, unpaired_difference
from gymrail.collect.scores import TaskRewards
from gymrail.rollout import Rollout

SOLVED = 0.5
"""A task counts as solved where at least this share of its rollouts has a reward of 1."""


class TaskName(NamedTuple):
    """A task as two runs know it, wherever in a dataset it stood."""

    environment: str
    id: str


Tasks = dict[TaskName, TaskRewards]


def task_rewards(rollouts: Iterable[Rollout]) -> Tasks:
    """Return the rewards by task, of the rollouts that have one."""
    found: Tasks = {}
    for rollout in rollouts:
        if rollout.is_trainable and rollout.reward is not None:
            environment, index, content = rollout.task_key
            found.setdefault(TaskName(environment, content or f"#{index}"), TaskRewards()).add(rollout.reward)
    return found


def compare(before: Tasks, after: Tasks) -> dict[str, Any]:
    """Return how `after` differs from `before`, overall and per environment, as plain JSON values.

    {"overall": {"difference", "low", "high", "paired", "tasks": [before, after, shared], "before", "after"},
     "environments": {name: the same}, "gained": [task, ...], "lost": [task, ...]}

    The difference is that of the means over tasks, with a 95% interval: over the tasks that both runs have, paired;
    between independent samples where they share fewer than two. `gained` and `lost` are the shared tasks that are
    solved in one run only.
    """
    names = sorted({name.environment for name in (*before, *after)})
    flipped = list(_flipped(before, after))
    return {
        "overall": _difference(before, after),
        "environments": {name: _difference(_of(before, name), _of(after, name)) for name in names},
        "gained": [task for task in flipped if task["after"] > task["before"]],
        "lost": [task for task in flipped if task["after"] < task["before"]],
    }


def _difference(before: Tasks, after: Tasks) -> dict[str, Any]:
    shared = [name for name in before if name in after]
    is_paired = len(shared) > 1
    if is_paired:
        mine, theirs = [before[name].mean for name in shared], [after[name].mean for name in shared]
        change = paired_difference(mine, theirs)
    else:
        mine, theirs = [task.mean for task in before.values()], [task.mean for task in after.values()]
        change = unpaired_difference(mine, theirs)
    return {
        **dict(zip(("difference", "low", "high"), _as_json(change), strict=True)),
        "paired": is_paired,
        "before": math.fsum(mine) / len(mine) if mine else None,
        "after": math.fsum(theirs) / len(theirs) if theirs else None,
        "tasks": {"before": len(before), "after": len(after), "shared": len(shared)},
    }


def _as_json(change: Difference) -> list[float | None]:
    return [None if math.isnan(value) else value for value in change]


def _flipped(before: Tasks, after: Tasks) -> Iterator[dict[str, Any]]:
    for name, task in sorted(before.items()):
        other = after.get(name)
        if other is not None and (task.pass_rate >= SOLVED) != (other.pass_rate >= SOLVED):
            yield {
                "environment": name.environment,
                "task_id": name.id,
                "before": task.pass_rate,
                "after": other.pass_rate,
                "rollouts": [task.count, other.count],
            }


def _of(tasks: Tasks, environment: str) -> Tasks:
    return {name: task for name, task in tasks.items() if name.environment == environment}
