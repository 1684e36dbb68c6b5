"""RFT: the tasks that are worth training on: neither always solved nor never."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import ClassVar

from gymrail.data.export.context import Context, Row
from gymrail.data.export.record import Record
from gymrail.data.profiled import PROFILE
from gymrail.errors import InputError


@dataclass(frozen=True)
class Rft:
    """Task rows in NeMo Gym's format again, each with its `pass_rate` where recipes and mixtures read it."""

    name: ClassVar[str] = "rft"
    by_task: ClassVar[bool] = True

    threshold: float = 1.0
    """A rollout passed that earned at least this much."""
    min_pass_rate: float = 0.0
    """Tasks must pass more often than this."""
    max_pass_rate: float = 1.0
    """Tasks must pass less often than this."""
    min_rollouts: int = 2
    """Rollouts that a task needs for its pass rate to mean something."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_pass_rate < self.max_pass_rate <= 1:
            raise InputError(
                f"The pass rates are {self.min_pass_rate!r} to {self.max_pass_rate!r}; "
                "they must lie in 0 to 1, the lower one first."
            )
        if self.min_rollouts < 1:
            raise InputError(f"min_rollouts is {self.min_rollouts!r}; it must be at least 1.")

    @property
    def columns(self) -> tuple[str, ...]:
        return ()

    def rows(self, records: Sequence[Record], context: Context) -> Iterator[Row]:
        """Yield the task's row, if it is one to train on."""
        if len(records) < self.min_rollouts:
            context.removed[f"tasks with fewer than {self.min_rollouts} rollouts"] += 1
            return
        rewards = [record.earned for record in records]
        rate = sum(reward >= self.threshold for reward in rewards) / len(rewards)
        if rate <= self.min_pass_rate:
            context.removed[f"tasks that pass at {self.min_pass_rate:g} or less often"] += 1
            return
        if rate >= self.max_pass_rate:
            context.removed[f"tasks that pass at {self.max_pass_rate:g} or more often"] += 1
            return
        row = records[0].task_row
        for record in records[1:] if not records[0].own else ():
            # Another program's rows hold the verdict's fields too; what differs between the rollouts is no task's.
            theirs = record.task_row
            row = {name: value for name, value in row.items() if name in theirs and theirs[name] == value}
        records[0].as_task()
        statistics = {
            "environment": records[0].environment,
            "count": len(rewards),
            "pass_rate": rate,
            "mean": fmean(rewards),
            "std": pstdev(rewards),
            "min": min(rewards),
            "max": max(rewards),
        }
        yield {
            **{name: value for name, value in row.items() if name not in ("_ng_task_index", PROFILE)},
            PROFILE: statistics,
            "lineage": context.task_lineage(records),
        }
