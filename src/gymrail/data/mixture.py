"""A mixture: several environments' tasks in one stream of groups, by weight.

    mixture = Mixture([Member(math, weight=2.0), Member(shop)], seed=0)
    mixture.group(0), mixture.group(1), ...

A group is one task, to be played several times. In a plain mixture `group(index)` depends on the members and the seed
alone, so a run that stopped after group n goes on at n + 1, and two processes that know the index agree on the task.
One that changes over steps or by what was measured is drawn batch by batch, with `MixtureStream`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import orjson

from gymrail.data.member import Member, check_members
from gymrail.data.member_tasks import tasks_of
from gymrail.data.mixing import PLAIN, Mixing
from gymrail.data.quota import Quota
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

__all__ = ["Group", "Member", "Mixing", "Mixture"]


@dataclass(frozen=True, slots=True)
class Group:
    """One task of the stream."""

    index: int
    """Its place in the mixture."""
    spec: EnvironmentSpec
    task: Task
    task_index: int
    """Its place in the member's dataset or generator; a finite dataset's tasks come again in later epochs."""
    is_known: bool = False
    """Whether a curriculum measured the task before, within the band, or its subset's rewards differed: those of
    its group will, most likely."""
    subset: str | None = None
    """What its row says in the member's `subset_by`."""


class Mixture:
    """A deterministic stream of groups, endless unless every member has `epochs`."""

    def __init__(self, members: Sequence[Member], seed: int = 0, mixing: Mixing = PLAIN) -> None:
        self.members = tuple(sorted(members, key=lambda member: member.spec.name))
        """By name, so that the order in which they are listed changes nothing."""
        self.seed = seed
        self.mixing = mixing
        check_members(self.members)
        self._check_together()
        self.tasks = [tasks_of(member, seed) for member in self.members]

    @property
    def is_plain(self) -> bool:
        """Whether `group(index)` says everything: no schedule, floor, epochs, limit on waiting, nor feedback."""
        return self.mixing.is_plain and all(member.is_plain for member in self.members)

    def plain(self) -> Mixture:
        """Return the mixture of the same tasks, weights and temperature in which a group's index decides it; a schedule
        becomes the mean of its points."""
        if self.is_plain:
            return self
        plain = {"schedule": (), "floor": 0, "epochs": None, "concurrency": None, "deadline_seconds": None}
        weights = [member.mean_weight for member in self.members]
        members = [
            replace(member, weight=weight, **plain)
            for member, weight in zip(self.members, weights, strict=True)
            if weight > 0
        ]
        mixing = Mixing(temperature=self.mixing.temperature, size_exponent=self.mixing.size_exponent)
        return Mixture(members, self.seed, mixing)

    def group(self, index: int) -> Group:
        """Return group `index`, counted from 0.

        Raises:
            InputError: the index is negative, the mixture is not plain, or the member's tasks cannot be read.
        """
        if index < 0:
            raise InputError(f"Group {index!r} does not exist; groups are counted from 0.")
        if not self.is_plain:
            raise InputError(
                "This mixture changes over steps or by what was measured, so a group's index does not say its task; "
                "draw it batch by batch with MixtureStream(mixture).batch(groups, step)."
            )
        which, place = self._schedule.at(index)
        task_index, task = self.tasks[which].at(place)
        return Group(index, self.members[which].spec, task, task_index)

    def groups(self, start: int = 0) -> Iterator[Group]:
        """Yield the groups from `start` on, without end."""
        index = start
        while True:
            yield self.group(index)
            index += 1

    def counts(self, groups: int) -> dict[str, int]:
        """Return how many of the first `groups` groups are each environment's; within 1 of its exact share."""
        return {
            member.spec.name: count for member, count in zip(self.members, self._schedule.counts(groups), strict=True)
        }

    def shares(self, groups: int) -> dict[str, float]:
        """Return each environment's share of the first `groups` groups; of none, what the weights ask for."""
        if groups == 0:
            weights = self.weights_at(0)
            total = math.fsum(weights)
            return {member.spec.name: weight / total for member, weight in zip(self.members, weights, strict=True)}
        return {name: count / groups for name, count in self.counts(groups).items()}

    def weights_at(self, step: int) -> list[float]:
        """Return each member's weight at a step, by size and temperature."""
        mixing = self.mixing
        weights = [member.weight_at(step) for member in self.members]
        if mixing.size_exponent:
            sizes = (tasks.size or 1 for tasks in self.tasks)
            weights = [weight * size**mixing.size_exponent for weight, size in zip(weights, sizes, strict=True)]
        return weights if mixing.temperature == 1 else [weight ** (1 / mixing.temperature) for weight in weights]

    @property
    def length(self) -> int | None:
        """How many groups there are until every member's epochs are over; None where one is endless."""
        lengths = [
            None if member.epochs is None else member.epochs * (tasks.size or 0)
            for member, tasks in zip(self.members, self.tasks, strict=True)
        ]
        return None if None in lengths else sum(length for length in lengths if length is not None)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what decides the stream: members, weights, seed, environment versions, the datasets' content.

        A run that resumes with another one would not go on but begin something else.
        """
        rows = [
            [
                member.spec.name,
                str(Fraction(str(member.weight))),
                member.split,
                member.limit,
                member.spec.version,
                tasks.content,
            ]
            for member, tasks in zip(self.members, self.tasks, strict=True)
        ]
        parts: list[object] = [self.seed, rows]
        if self.mixing != PLAIN or not self.is_plain:
            parts.append(self.mixing.model_dump(mode="json"))
            parts.append([[member.schedule, member.floor, member.epochs] for member in self.members])
        if self.mixing.curriculum is not None and any(member.subset_by for member in self.members):
            parts.append([member.subset_by for member in self.members])
        return hashlib.blake2b(orjson.dumps(parts), digest_size=8).hexdigest()

    @cached_property
    def _schedule(self) -> Quota:
        return Quota(self.weights_at(0), self.seed)

    def _check_together(self) -> None:
        endless = [member.spec.name for member in self.members if member.is_endless]
        if self.mixing.size_exponent and endless:
            raise InputError(
                f"size_exponent needs a number of tasks, and {endless[0]!r} generates them without end; "
                "give it a limit, or set size_exponent to 0."
            )
        counted = [member.spec.name for member in self.members if member.epochs is not None]
        if self.mixing.carries and counted:
            raise InputError(
                f"{counted[0]!r} has epochs, and with late.carry some of its groups could be over only after the "
                "mixture is; leave out one."
            )
        if self.mixing.curriculum is not None and counted:
            raise InputError(
                f"{counted[0]!r} has epochs, and a curriculum decides itself how often a task comes; leave out one."
            )
