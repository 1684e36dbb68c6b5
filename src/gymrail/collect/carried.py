"""Groups that were late for their batch and are played on beside the next ones, so that a slow environment neither
stalls a batch nor loses its episodes.

    carried = Carried()
    await play_batch(stream, model, groups=32, repeats=8, step=0, carried=carried)
    await play_batch(stream, model, groups=32, repeats=8, step=4, carried=carried)     # on the same event loop
    await carried.close()

An environment with late groups here is known to be slow: its next groups are begun beside the batch that draws them,
and take places of later batches, in the order in which they were begun, once all their episodes are over. When they are
over before their own batch is, it is slow no more. Between two batches episodes go on waiting for their tools, but the
model is not asked: its weights may be changing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from gymrail.models.model import EpisodePolicy, Model, ModelRequest, ModelResponse

if TYPE_CHECKING:
    from gymrail.collect.batch import PlayedGroup

logger = logging.getLogger(__name__)


class Carried:
    """What is in flight between batches; one for a stream, used on one event loop."""

    def __init__(self) -> None:
        self._groups: list[_Group] = []
        self._asked = _Door()
        self._behind: _Behind | None = None
        self.rooms: dict[str, asyncio.Semaphore] = {}
        """By environment with a limit of its own: it holds for episodes of all batches together."""

    @property
    def environments(self) -> set[str]:
        """The slow ones: they have groups here that were not over when the batch that drew them was."""
        return {group.played.group.spec.name for group in self._groups if group.is_late}

    @property
    def episodes(self) -> Counter[str]:
        """Episodes in flight, by environment."""
        counts: Counter[str] = Counter()
        for group in self._groups:
            counts[group.played.group.spec.name] += sum(not task.done() for task in group.tasks)
        return counts

    def begin(self, model: Model | EpisodePolicy) -> Model | EpisodePolicy:
        """Begin a batch, and return the model that its episodes are to ask: it answers while a batch is played."""
        for group in self._groups:
            group.batches += 1
        self._asked.open()
        if not hasattr(model, "respond"):  # an oracle, a script: its answers never change
            return model
        if self._behind is None or self._behind.model is not model:
            self._behind = _Behind(cast(Model, model), self._asked)
        return self._behind

    async def pause(self) -> None:
        """End a batch; returns when no answer is being sampled."""
        await self._asked.close()
        for group in self._groups:
            if group.batches == 0:
                group.is_late = not group.is_over

    def add(self, played: PlayedGroup, tasks: set[asyncio.Task[None]]) -> None:
        """Play a group on; its rollouts come to it as they end."""
        self._groups.append(_Group(played, tasks))

    def take(self, most: int) -> list[PlayedGroup]:
        """Return groups that are over and let them go, the ones begun first before others.

        Raises:
            Exception: what recording one of their rollouts raised.
        """
        over = [group for group in self._groups if group.is_over][:most]
        self._groups = [group for group in self._groups if group not in over]
        errors = [task.exception() for group in over for task in group.tasks]
        if (error := next(filter(None, errors), None)) is not None:
            raise error
        return [group.played for group in over]

    async def expire(self, batches: int) -> list[tuple[PlayedGroup, range]]:
        """Give up the groups that more batches than this have begun beside, and return them with what they have and
        the repeats that they should have."""
        old = [group for group in self._groups if group.batches > batches and not group.is_over]
        self._groups = [group for group in self._groups if group not in old]
        await _cancelled(old)
        return [(group.played, range(len(group.tasks))) for group in old]

    async def close(self) -> int:
        """End what is in flight, and return how many episodes did not come to their end."""
        groups, self._groups = self._groups, []
        unfinished = await _cancelled(groups)
        if unfinished:
            logger.warning(
                "Training ended with %d episodes still being played beside it; they are dropped.", unfinished
            )
        return unfinished


@dataclass(slots=True, eq=False)
class _Group:
    played: PlayedGroup
    tasks: set[asyncio.Task[None]]
    batches: int = 0
    """That have begun since it was begun."""
    is_late: bool = True

    @property
    def is_over(self) -> bool:
        return all(task.done() for task in self.tasks)


async def _cancelled(groups: list[_Group]) -> int:
    tasks = [task for group in groups for task in group.tasks]
    unfinished = sum(not task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return unfinished


class _Door:
    """Lets through while it is open; closing waits for those inside."""

    def __init__(self) -> None:
        self._is_open = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._inside = 0
        self._is_empty.set()

    def open(self) -> None:
        self._is_open.set()

    async def close(self) -> None:
        self._is_open.clear()
        await self._is_empty.wait()

    async def __aenter__(self) -> None:
        while not self._is_open.is_set():
            await self._is_open.wait()
        self._inside += 1
        self._is_empty.clear()

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside:
            self._is_empty.set()


class _Behind:
    """A model that is asked through a door."""

    def __init__(self, model: Model, door: _Door) -> None:
        self.model = model
        self._door = door

    async def respond(self, request: ModelRequest) -> ModelResponse:
        async with self._door:
            return await self.model.respond(request)
