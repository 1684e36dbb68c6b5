"""A curriculum's memory of one member by subset: which kinds of tasks teach, for tasks that are hardly met twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import pvariance
from typing import Any

from gymrail.data.member_tasks import Finite, Generated
from gymrail.data.mixing import Curriculum
from gymrail.data.mixture import Group
from gymrail.errors import InputError
from gymrail.task import Task, field_of, fields_of

_KEPT = 0.95
"""What a subset's earlier groups count after one more: some twenty of them are remembered."""
_PASSED_OVER = 500
"""Tasks that a draw looks at, at most, before it takes one as it comes."""
_MOST = 1_000
"""Subsets of a member."""
_LARGEST = 0.25
"""Variance that rewards between 0 and 1 can have."""
_KNOWN = 0.06
"""From this variance on a group's rewards will differ, most likely: of rewards of 0 and 1, that of a pass rate of 0.07
or 0.93."""


@dataclass(slots=True)
class _Subset:
    groups: float = 0.0
    variance: float = 0.0
    """Decayed sums: how many its groups were, and the variances of their rewards, as places in the reward range."""
    credit: float = 0.0
    """Of its tasks that came by, how many it may still take."""

    @property
    def teaches(self) -> float:
        """The mean variance of its groups' rewards lately, as if one more group had the largest: what was never
        measured is worth a try."""
        return (self.variance + _LARGEST) / (self.groups + 1)


class Subsets:
    """Chooses a member's next task by what the groups of its subset came to, and nothing else of the task.

    The stream's tasks come by in their order. Of the subset whose groups' rewards vary most, each is taken; of another,
    a part in proportion to their variance, and `subset_floor` of them at least. Deterministic: equal histories choose
    equal tasks.

    That variance, p (1 - p) for rewards of 0 and 1, is what `gymrail.data.profiled.signal_of` weighs single tasks by.
    That advantages say how much a kind of task can teach now, and that its tasks share what is known about them, is the
    idea of bandits over task categories (Chen et al., "Self-Evolving Curriculum for LLM Reasoning", arXiv:2505.14970;
    Wang et al., "DUMP", arXiv:2504.09710).
    """

    def __init__(self, tasks: Generated | Finite, curriculum: Curriculum, name: str) -> None:
        """
        Args:
            name: the field of the rows that says which subset a task is of.
        """
        self._tasks = tasks
        self._curriculum = curriculum
        self._name = name
        self._subsets: dict[str, _Subset] = {}

    def choose(self, place: int, step: int, *, is_refill: bool = False) -> tuple[int, int]:
        """Return the next task, and the place in the member's stream that comes after it."""
        last = place + _PASSED_OVER - 1
        while True:
            task_index, task = self._tasks.at(place)
            subset = self._subsets.setdefault(self._subset_of(task), _Subset())
            most = max(other.teaches for other in self._subsets.values())
            subset.credit += max(self._curriculum.subset_floor, subset.teaches / most)
            if subset.credit > 1 - 1e-9 or place == last:
                subset.credit -= 1
                return task_index, place + 1
            place += 1

    def observe(self, group: Group, rewards: Sequence[float], step: int) -> None:
        """Take in what a group earned; one whose rewards are missing says nothing."""
        assert group.subset is not None
        if len(rewards) > 1:
            found = self._subsets[group.subset]
            found.groups = found.groups * _KEPT + 1
            low, high = group.spec.reward_range
            variance = pvariance(rewards) / (high - low) ** 2 if high > low else 0.0
            found.variance = found.variance * _KEPT + min(variance, _LARGEST)

    def described(self, group: Group) -> Group:
        """Return a group with its subset, and whether its rewards will differ, most likely."""
        name = self._subset_of(group.task)
        found = self._subsets.setdefault(name, _Subset())
        return replace(group, subset=name, is_known=found.groups > 0 and found.teaches >= _KNOWN)

    def state(self) -> dict[str, Any]:
        return {name: asdict(subset) for name, subset in self._subsets.items()}

    def restore(self, state: dict[str, Any]) -> None:
        self._subsets = {name: _Subset(**values) for name, values in state.items()}

    def _subset_of(self, task: Task) -> str:
        """Return what a task's row says in the field.

        Raises:
            InputError: it does not have it.
        """
        found = field_of(task, self._name)
        if found is None:
            fields = dict.fromkeys(fields_of(task))
            raise InputError(
                f"subset_by is {self._name!r}, and task {task.id} of the mixture has no such field; its row has: "
                f"{', '.join(fields) or 'none'}."
            )
        if found not in self._subsets and len(self._subsets) == _MOST:
            raise InputError(
                f"subset_by is {self._name!r}, which has more than {_MOST:,} values, such as {found!r}: hardly one "
                "would be met twice. Name a field with few values, or leave it out and let the curriculum choose tasks."
            )
        return found
