"""Task profiles: how hard a run found each task, written on the task's row, so that training can choose tasks by it.

    {"responses_create_params": {...}, ..., "_profile": {"environment": "shop", "task_index": 3, "count": 8,
     "pass_rate": 0.25, "mean": 0.4, "std": 0.3, "min": 0.0, "max": 1.0}}

Fields that begin with `_` do not count in a task's id: the profiled row is the same task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gymrail.collect.scores import TaskRewards
from gymrail.data.profiled import PROFILE
from gymrail.rollout import Rollout


def profile_rows(rollouts: Iterable[Rollout]) -> Iterator[dict[str, Any]]:
    """Yield each task's row with its statistics, by environment and place; a task without any reward is left out."""
    tasks: dict[tuple[str, int, str], _Profile] = {}
    for rollout in rollouts:
        if rollout.is_trainable and rollout.reward is not None:
            profile = tasks.get(rollout.task_key)
            if profile is None:
                profile = tasks[rollout.task_key] = _Profile(_task_row(rollout))
            elif rollout.source is not None:
                profile.keep_what_is_shared(_task_row(rollout))
            profile.rewards.add(rollout.reward)
    for (environment, index, _), profile in sorted(tasks.items(), key=lambda item: item[0]):
        rewards = profile.rewards
        statistics = {
            "environment": environment,
            "task_index": index,
            "count": rewards.count,
            "pass_rate": rewards.pass_rate,
            "mean": rewards.mean,
            "std": rewards.std,
            "min": rewards.low,
            "max": rewards.high,
        }
        yield {**profile.row, PROFILE: statistics}


@dataclass(slots=True)
class _Profile:
    row: dict[str, Any]
    rewards: TaskRewards = field(default_factory=TaskRewards)

    def keep_what_is_shared(self, row: dict[str, Any]) -> None:
        """Drop what differs between a task's rollouts: another program's rows hold the verdict's fields too."""
        self.row = {name: value for name, value in self.row.items() if name in row and row[name] == value}


def _task_row(rollout: Rollout) -> dict[str, Any]:
    return {name: value for name, value in rollout.task.row.items() if name not in ("_ng_task_index", PROFILE)}
