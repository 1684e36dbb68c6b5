"""One environment of a mixture: its share, its tasks, and how long a batch waits for it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec


@dataclass(frozen=True, slots=True)
class Member:
    """One environment of a mixture."""

    spec: EnvironmentSpec
    weight: float = 1.0
    """Its share, relative to the other members' weights."""
    split: str = "train"
    limit: int | None = None
    """Use the first so many tasks only; without it, all of a dataset, and ever new ones of a generator."""
    profile: Path | None = None
    """Use the tasks of this profile (`gymrail profile`) instead of the split's."""
    pass_rate: tuple[float, float] = (0.0, 1.0)
    """With a profile: only the tasks whose pass rate lies within."""
    weight_by: Literal["pass_rate"] | None = None
    """With a profile: how often each task comes, in proportion to `profiled.signal_of`; equally often by default."""
    schedule: tuple[tuple[int, float], ...] = ()
    """Weights at steps, instead of `weight`: linear between them, constant before the first and after the last."""
    floor: int = 0
    """Groups of it in every batch, whatever its weight; none where its schedule says 0."""
    epochs: int | None = None
    """How often its dataset is gone through; then its share passes to the others. Endless by default."""
    subset_by: str | None = None
    """A field of its rows, such as their difficulty or source; `a.b` is field b of field a. A curriculum chooses among
    the subsets with equal values instead of among tasks, and trainers log each subset."""
    concurrency: int | None = None
    """Its episodes at once; only the whole run's limit by default."""
    deadline_seconds: float | None = None
    """Its episodes that are not over so long after their batch began are late: they are not waited for."""
    reward_scale: float = 1.0
    """What its rewards are multiplied by for the trainer; records keep the verifier's reward."""

    @property
    def is_endless(self) -> bool:
        """Whether its tasks come from a generator without end."""
        if self.limit is not None or self.profile is not None:
            return False
        entry = next((entry for entry in self.spec.manifest.datasets if entry.split == self.split), None)
        return entry.source == "generator" if entry is not None else self.spec.is_generated

    @property
    def is_plain(self) -> bool:
        """Whether its groups are decided by weight and index alone, and waited for however long they take."""
        return not self.schedule and not self.floor and self.epochs is None and self.waits_forever

    @property
    def waits_forever(self) -> bool:
        return self.concurrency is None and self.deadline_seconds is None

    def weight_at(self, step: int) -> float:
        """Return the weight that holds at a step."""
        if not self.schedule:
            return self.weight
        before = self.schedule[0]
        for point in self.schedule:
            if point[0] > step:
                width = point[0] - before[0]
                share = (step - before[0]) / width if width else 0.0
                return before[1] + share * (point[1] - before[1]) if step > before[0] else before[1]
            before = point
        return before[1]

    @property
    def mean_weight(self) -> float:
        """Its weight, or the mean of its schedule's points."""
        weights = [weight for _, weight in self.schedule] or [self.weight]
        return math.fsum(weights) / len(weights)


def check_members(members: Sequence[Member]) -> None:
    """Refuse a mixture that cannot be drawn from.

    Raises:
        InputError: there is no member, one is named twice, or one of its values is out of its range.
    """
    if not members:
        raise InputError("The mixture has no members; name at least one environment.")
    names: set[str] = set()
    for member in members:
        name = member.spec.name
        if name in names:
            raise InputError(f"The mixture names {name!r} twice; list it once, with the sum of the weights.")
        names.add(name)
        _check(member)
    _check_never_empty(members)


def _check(member: Member) -> None:
    name, limit, scale = member.spec.name, member.limit, member.reward_scale
    if member.weight_by is not None and member.profile is None:
        raise InputError(f"weight_by of {name!r} needs a profile: `gymrail profile RUN -o FILE` writes one.")
    if not _is_number(member.weight) or member.weight <= 0:
        raise InputError(
            f"The weight of {name!r} is {member.weight!r}; it must be a finite number above 0. "
            "Leave out what has no share."
        )
    if limit is not None and not _is_count(limit, 1):
        raise InputError(f"The limit of {name!r} is {limit!r}; it must be a whole number of at least 1, or absent.")
    _check_schedule(name, member.schedule)
    if not _is_count(member.floor, 0):
        raise InputError(f"The floor of {name!r} is {member.floor!r}; it is a number of groups per batch, 0 or more.")
    for key, value in (("epochs", member.epochs), ("concurrency", member.concurrency)):
        if value is not None and not _is_count(value, 1):
            raise InputError(f"{key} of {name!r} is {value!r}; it must be a whole number of at least 1, or absent.")
    if member.epochs is not None and member.is_endless:
        raise InputError(
            f"epochs of {name!r} is {member.epochs!r}, but its tasks come from a generator and have no epochs; "
            "say with limit how many of them make one."
        )
    seconds = member.deadline_seconds
    if seconds is not None and (not _is_number(seconds) or seconds <= 0):
        raise InputError(f"deadline_seconds of {name!r} is {seconds!r}; it must be a number of seconds above 0.")
    if not _is_number(scale) or scale <= 0:
        raise InputError(
            f"reward_scale of {name!r} is {scale!r}; it must be a finite number above 0: 0 would hide all rewards, "
            "a negative one would turn them around."
        )


def _check_schedule(name: str, schedule: Any) -> None:
    steps = []
    for point in schedule:
        if not isinstance(point, tuple | list) or len(point) != 2 or not _is_count(point[0], 0):
            raise InputError(f"The schedule of {name!r} has {point!r}; a point is [step, weight], the step 0 or more.")
        if not _is_number(point[1]) or point[1] < 0:
            raise InputError(f"The schedule of {name!r} has the weight {point[1]!r}; it must be a number, 0 or more.")
        steps.append(point[0])
    if steps != sorted(set(steps)):
        raise InputError(f"The schedule of {name!r} has the steps {steps}; they must rise.")


def _check_never_empty(members: Sequence[Member]) -> None:
    """Weights are linear between points: where all are 0, they are at a point, right after one, or past the last."""
    points = sorted({0} | {point[0] for member in members for point in member.schedule})
    between = [start + 1 for start, end in itertools.pairwise(points) if end - start > 1]
    for step in sorted([*points, *between, points[-1] + 1]):
        if not any(member.weight_at(step) > 0 for member in members):
            raise InputError(f"At step {step} every weight of the mixture is 0; leave at least one above.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
