"""A member's tasks as a stream of places: a generator's are ever new, a dataset's come again in each epoch."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from functools import cached_property
from random import Random

import orjson

from gymrail.data.member import Member
from gymrail.data.profiled import ProfiledTask, read_profiled, signal_of
from gymrail.errors import InputError
from gymrail.task import Task


def tasks_of(member: Member, seed: int) -> Generated | Finite:
    """Return the stream of a member's tasks; a dataset is read when its first task is asked for."""
    if member.is_endless:
        return Generated(member, seed)
    return Finite(member, seed) if member.weight_by is None else Weighted(member, seed)


class Generated:
    """A generator's tasks, each one new."""

    content = "generated"
    size: int | None = None

    def __init__(self, member: Member, seed: int) -> None:
        self._member = member
        self._seed = seed

    def at(self, place: int) -> tuple[int, Task]:
        return place, self.task(place)

    def task(self, task_index: int) -> Task:
        return self._member.spec.generate(self._member.split, task_index, self._seed)


class Finite:
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

    @property
    def size(self) -> int | None:
        """How many places an epoch has."""
        return len(self.tasks)

    def task(self, task_index: int) -> Task:
        return self.tasks[task_index]

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


class Weighted(Finite):
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
