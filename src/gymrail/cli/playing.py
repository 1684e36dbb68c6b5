"""A run being played: in this process, or by workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gymrail.collect.drain import Drain
from gymrail.collect.runner import Summary
from gymrail.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from gymrail.agents.tool_loop import Agent
    from gymrail.cli.execution import Crew
    from gymrail.cli.progress import Progress
    from gymrail.collect.budget import Spending
    from gymrail.collect.finished import Finished
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.collect.runner import Job
    from gymrail.models.model import EpisodePolicy, Model
    from gymrail.models.pace import Load
    from gymrail.spec import EnvironmentSpec


@dataclass(slots=True)
class Playing:
    """What a run is played with, and how far it is."""

    specs: list[EnvironmentSpec]
    model: Model | EpisodePolicy
    agent: Agent
    concurrency: int
    retries: int
    limits: Limits = DEFAULT_LIMITS
    spending: Spending | None = None
    """What the run has spent of its budget, where it has one."""
    crew: Crew | None = None
    """The workers; without them this process plays."""
    summary: Summary = field(default_factory=Summary)
    drain: Drain = field(default_factory=Drain)
    worker_loads: dict[int, Mapping[str, Load]] = field(default_factory=dict)
    """How busy each worker keeps its model's endpoints."""

    @property
    def in_flight(self) -> int:
        """Episodes that are being played; what waits at a worker is not."""
        return min(self.summary.asked - self.summary.finished, self.concurrency)

    def loads(self) -> Mapping[str, Load]:
        """How busy the model's endpoints are, by address; with workers, all of theirs together."""
        from gymrail.models.pace import total_load

        if self.crew is None:
            return getattr(self.model, "loads", {})
        each = list(self.worker_loads.values())
        addresses = dict.fromkeys(address for loads in each for address in loads)
        return {address: total_load(loads[address] for loads in each if address in loads) for address in addresses}

    async def check(self) -> None:
        """Find a wrong address or key before the run, as one message and not as a failure per rollout."""
        try:
            await _call_if_present(self.model, "check")
        finally:
            await _call_if_present(self.model, "close")

    async def play(self, jobs: Iterable[Job], folder: RunDirectory, progress: Progress) -> None:
        """Play the jobs, and give back what that took."""
        from gymrail.collect.finished import finished_of
        from gymrail.collect.runner import collect

        try:
            if self.crew is not None:
                await self._play_with(self.crew, jobs, folder, progress)
                return
            await collect(
                jobs, self.model, agent=self.agent, limits=self.limits,
                concurrency=self.concurrency, retries=self.retries,
                record=folder.record, on_rollout=lambda rollout: self._count(finished_of(rollout), progress),
                summary=self.summary, drain=self.drain,
            )  # fmt: skip
        finally:
            await _call_if_present(self.agent, "close")
            await _call_if_present(self.model, "close")
            if self.crew is not None:
                self.crew.launcher.close()
            for spec in self.specs:
                await spec.teardown()

    async def _play_with(self, crew: Crew, jobs: Iterable[Job], folder: RunDirectory, progress: Progress) -> None:
        from gymrail.collect.executors.pool import collect_with_workers

        await collect_with_workers(
            jobs, crew.setup, crew.launcher, workers=crew.count, concurrency=self.concurrency,
            record=folder.record_line, on_finished=lambda finished: self._count(finished, progress),
            loads=self.worker_loads, summary=self.summary, drain=self.drain,
        )  # fmt: skip

    def _count(self, finished: Finished, progress: Progress) -> None:
        progress.add(finished)
        if self.spending is not None:
            self.spending.add(finished)


async def _call_if_present(model: Any, name: str) -> None:
    method: Callable[[], Any] | None = getattr(model, name, None)
    if method is not None:
        result = method()
        if asyncio.iscoroutine(result):
            await result
