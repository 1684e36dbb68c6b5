"""A mixture: several environments' tasks in one endless stream of groups, by weight.

    mixture = Mixture([Member(math, weight=2.0), Member(shop)], seed=0)
    mixture.group(0), mixture.group(1), ...

A group is one task, to be played several times. `group(index)` depends on the members and the seed alone, so a run that
stopped after group n goes on at n + 1, and two processes that know the index agree on the task.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Literal

import orjson

from gymrail.data.profiled import ProfiledTask, read_profiled, signal_of
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task


@dataclass(frozen=True, slots=True)
class Member:
    """One environment of a mixture."""

    spec: EnvironmentSpec
    weight: float = 1.0
    """Its share of the groups, relative to the other members' weights."""
    split: str = "train"
    limit: int | None = None
    """Use the first so many tasks only; without it, all of a dataset, and ever new ones of a generator."""
    profile: Path | None = None
    """Use the tasks of this profile (`gymrail profile`) instead of the split's."""
    pass_rate: tuple[float, float] = (0.0, 1.0)
    """With a profile: only the tasks whose pass rate lies within."""
    weight_by: Literal["pass_rate"] | None = None
    """With a profile: how often each task comes, in proportion to `profiled.signal_of`; equally often by default."""


@dataclass(frozen=True, slots=True)
class Group:
    """One task of the stream."""

    index: int
    """Its place in the mixture."""
    spec: EnvironmentSpec
    task: Task
    task_index: int
    """Its place in the member's dataset or generator; a finite dataset's tasks come again in later epochs."""


class Mixture:
    """An endless, deterministic stream of groups."""

    def __init__(self, members: Sequence[Member], seed: int = 0) -> None:
        self.members = tuple(sorted(members, key=lambda member: member.spec.name))
        """By name, so that the order in which they are listed changes nothing."""
        self.seed = seed
        _check(self.members)
        self._schedule = _Schedule([member.weight for member in self.members], seed)
        self._streams = [
            _Generated(member, seed) if _is_endless(member) else _finite(member, seed) for member in self.members
        ]

    def group(self, index: int) -> Group:
        """Return group `index`, counted from 0.

        Raises:
            InputError: the index is negative, or the member's tasks cannot be read.
        """
        if index < 0:
            raise InputError(f"Group {index!r} does not exist; groups are counted from 0.")
        which, place = self._schedule.at(index)
        task_index, task = self._streams[which].at(place)
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
            total = math.fsum(member.weight for member in self.members)
            return {member.spec.name: member.weight / total for member in self.members}
        return {name: count / groups for name, count in self.counts(groups).items()}

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
                stream.content,
            ]
            for member, stream in zip(self.members, self._streams, strict=True)
        ]
        return hashlib.blake2b(orjson.dumps([self.seed, rows]), digest_size=8).hexdigest()


def _check(members: Sequence[Member]) -> None:
    if not members:
        raise InputError("The mixture has no members; name at least one environment.")
    names: set[str] = set()
    for member in members:
        name, weight, limit = member.spec.name, member.weight, member.limit
        if member.weight_by is not None and member.profile is None:
            raise InputError(f"weight_by of {name!r} needs a profile: `gymrail profile RUN -o FILE` writes one.")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight <= 0:
            raise InputError(
                f"The weight of {name!r} is {weight!r}; it must be a finite number above 0. "
                "Leave out what has no share."
            )
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InputError(f"The limit of {name!r} is {limit!r}; it must be a whole number of at least 1, or absent.")
        if name in names:
            raise InputError(f"The mixture names {name!r} twice; list it once, with the sum of the weights.")
        names.add(name)


def _is_endless(member: Member) -> bool:
    if member.limit is not None or member.profile is not None:
        return False
    entry = next((entry for entry in member.spec.manifest.datasets if entry.split == member.split), None)
    return entry.source == "generator" if entry is not None else member.spec.is_generated


class _Generated:
    """A generator's tasks, each one new."""

    content = "generated"

    def __init__(self, member: Member, seed: int) -> None:
        self._member = member
        self._seed = seed

    def at(self, place: int) -> tuple[int, Task]:
        return place, self._member.spec.generate(self._member.split, place, self._seed)


def _finite(member: Member, seed: int) -> _Finite:
    return _Finite(member, seed) if member.weight_by is None else _Weighted(member, seed)


class _Finite:
    """A dataset's tasks, in a new order in each epoch."""

    def __init__(self, member: Member, seed: int) -> None:
        self._member = member
        self._seed = seed
        self._order: tuple[int, array[int]] = (-1, array("q"))

    @cached_property
    def profiled(self) -> list[ProfiledTask]:
        member = self._member
        assert member.profile is not None
        task_type, name = member.spec.cls.task_type, member.spec.name
        return read_profiled(member.profile, task_type, name, member.pass_rate)[: member.limit]

    @cached_property
    def tasks(self) -> list[Task]:
        member = self._member
        if member.profile is not None:
            return [profiled.task for profiled in self.profiled]
        tasks = list(member.spec.tasks(member.split, limit=member.limit, seed=self._seed))
        if not tasks:
            raise InputError(
                f"The {member.split} split of {member.spec.name!r} has no tasks; "
                "a mixture needs at least one of each member."
            )
        return tasks

    @property
    def content(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        for task in self.tasks:
            digest.update(task.id.encode())
        return digest.hexdigest()

    def at(self, place: int) -> tuple[int, Task]:
        epoch, position = divmod(place, len(self.tasks))
        if self._order[0] != epoch:
            rng = Random(f"{self._seed}:{self._member.spec.name}:{epoch}")
            order = self._members_of_epoch(rng)
            rng.shuffle(order)
            self._order = (epoch, order)
        index = self._order[1][position]
        return index, self.tasks[index]

    def _members_of_epoch(self, rng: Random) -> array[int]:
        return array("q", range(len(self.tasks)))


class _Weighted(_Finite):
    """A profile's tasks, each as often as it teaches.

    An epoch has as many places as there are tasks, and a task whose share is worth 2.3 of them has 2 or 3: systematic
    sampling, unbiased and without the clumps of independent draws.
    """

    @cached_property
    def weights(self) -> list[float]:
        weights = []
        for task, pass_rate, rollouts in self.profiled:
            if rollouts is None:
                path, name = self._member.profile, self._member.spec.name
                raise InputError(
                    f"'{path}' does not say of how many rollouts the pass rate of {name!r} task {task.id} is, which "
                    f"weight_by needs; `gymrail profile RUN -o {path}` writes it as 'count'."
                )
            weights.append(signal_of(pass_rate, rollouts))
        return weights

    @property
    def content(self) -> str:
        return f"{super().content}:{hashlib.blake2b(orjson.dumps(self.weights), digest_size=8).hexdigest()}"

    def _members_of_epoch(self, rng: Random) -> array[int]:
        ends = list(itertools.accumulate(self.weights))
        step, start = ends[-1] / len(ends), rng.random()
        order, index = array("q"), 0
        for place in range(len(ends)):
            point = (place + start) * step
            while index < len(ends) - 1 and ends[index] <= point:
                index += 1
            order.append(index)
        return order


class _Schedule:
    """Which member each group belongs to: the quota method of Balinski and Young, within 1 of the exact shares always.

    Of the members that are not ahead of their share, the one whose next group is due first gets it; the seed settles
    ties. Weights are taken as exact decimals, so the pattern repeats after a whole number of groups; it is worked out
    once, as far as it is asked for.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        fractions = [Fraction(str(weight)) for weight in weights]
        scale = math.lcm(*(fraction.denominator for fraction in fractions))
        whole = [int(fraction * scale) for fraction in fractions]
        divisor = math.gcd(*whole)
        self._weights = [weight // divisor for weight in whole]
        self._period = sum(self._weights)
        self._ties = list(range(len(whole)))
        Random(f"{seed}:mixture").shuffle(self._ties)
        self._given = [0] * len(whole)
        self._members = array("H")
        self._places = array("Q")
        """For each group so far: its member, and which of that member's groups it is."""

    def at(self, index: int) -> tuple[int, int]:
        """Return the member of a group, and which of the member's groups it is."""
        cycles, offset = divmod(index, self._period)
        while len(self._members) <= offset:
            self._extend()
        member = self._members[offset]
        return member, cycles * self._weights[member] + self._places[offset]

    def counts(self, groups: int) -> list[int]:
        """Return how many of the first `groups` groups each member has."""
        cycles, rest = divmod(groups, self._period)
        counts = [cycles * weight for weight in self._weights]
        for index in range(rest):
            counts[self.at(index)[0]] += 1
        return counts

    def _extend(self) -> None:
        given, weights, period = self._given, self._weights, self._period
        after = len(self._members) + 1
        chosen = -1
        for member in self._ties:
            if given[member] * period >= after * weights[member]:
                continue
            # (given + 1) / weight is when the member's next group is due; compared without rounding.
            if chosen < 0 or (given[member] + 1) * weights[chosen] < (given[chosen] + 1) * weights[member]:
                chosen = member
        self._members.append(chosen)
        self._places.append(given[chosen])
        given[chosen] += 1
