"""Many episodes: a stream of jobs, so many at once, retried where that helps, recorded before they are counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

from gymrail.agents.tool_loop import Agent
from gymrail.collect.drain import Drain
from gymrail.collect.journal import Key
from gymrail.episode import DEFAULT_LIMITS, Limits
from gymrail.errors import EpisodeFailed, GymrailError, InputError, guard
from gymrail.models.model import EpisodePolicy, Model
from gymrail.play import DEFAULT_AGENT, failed_before_opening, play
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

logger = logging.getLogger(__name__)

_MAX_PAUSE_SECONDS = 30.0
_BREATH_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Job:
    """One rollout that is asked for."""

    spec: EnvironmentSpec
    task: Task
    task_index: int = 0
    repeat: int = 0

    @property
    def key(self) -> Key:
        """The key that its rollout will have."""
        return Key(self.spec.name, self.task_index, self.task.id, self.repeat)


@dataclass(slots=True)
class Summary:
    """What became of the jobs; counted live, so a progress display or a cancelled caller can read it."""

    asked: int = 0
    scored: int = 0
    truncated: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    """Attempts that failed and were played again; they are not outcomes."""
    seconds: float = 0.0

    @property
    def finished(self) -> int:
        """Jobs that have their outcome; what is asked and not finished is being played."""
        return self.scored + self.truncated + self.failed + self.cancelled


async def collect(
    jobs: Iterable[Job],
    model: Model | EpisodePolicy,
    *,
    agent: Agent = DEFAULT_AGENT,
    limits: Limits = DEFAULT_LIMITS,
    concurrency: int = 64,
    retries: int = 1,
    retry_seconds: float = 1.0,
    record: Callable[[Rollout], None] | None = None,
    on_rollout: Callable[[Rollout], None] | None = None,
    summary: Summary | None = None,
    drain: Drain | None = None,
) -> Summary:
    """Play the jobs, `concurrency` at once, and return what became of them.

    Args:
        jobs: may be endless; the next one is taken when there is room to play it.
        retries: further attempts where a failure may go away by itself (model, timeout, infrastructure).
        retry_seconds: pause before the second attempt; it doubles, with jitter, up to half a minute.
        record: makes a rollout durable; called once per job, before it is counted. What it raises stops the run.
        on_rollout: told of each rollout after that.
        summary: filled instead of a new one, for reading on the way or after a cancellation.
        drain: once requested, no job is taken and no failed attempt is repeated; what is being played is finished.

    Raises:
        asyncio.CancelledError: cancelled; every episode is closed, what was played half is counted as `cancelled`.
        GymrailError: `jobs` has no next job (a bad row); what is being played is finished and recorded first.
    """
    if concurrency < 1 or retries < 0:
        raise InputError(f"concurrency is {concurrency!r} and retries is {retries!r}; at least 1 and 0 are needed.")
    summary = Summary() if summary is None else summary
    started = time.monotonic()
    drain = drain or Drain()
    player = Player(model, agent, limits, retries, retry_seconds, summary, drain)
    run = _Run(iter(jobs), player, record, on_rollout, summary, drain)
    workers = [asyncio.create_task(run.work()) for _ in range(concurrency)]
    try:
        await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        # A library may swallow a cancellation (Python 3.11's asyncio.wait_for does); its worker must take no next job.
        run.jobs = iter(())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        summary.seconds += time.monotonic() - started
        assert summary.asked == summary.finished, f"a rollout was lost or doubled: {summary}"
    for worker in workers:
        if not worker.cancelled() and (error := worker.exception()) is not None:
            raise error
    if run.source_error is not None:
        raise run.source_error
    return summary


@dataclass(slots=True)
class Player:
    """Plays one job to its outcome, with the attempts that it takes."""

    model: Model | EpisodePolicy
    agent: Agent
    limits: Limits
    retries: int
    retry_seconds: float
    summary: Summary
    """Where it counts the attempts that are repeated."""
    drain: Drain

    async def play(self, job: Job) -> Rollout:
        """Return the rollout of the last attempt; a drain leaves a failed one without another."""
        rollout: Rollout | None = None
        for attempt in range(1, self.retries + 1):
            rollout = await self._attempt(job, attempt, rollout)
            failure = rollout.failure
            if failure is None or not failure.is_retryable or self.drain.is_requested:
                return rollout
            logger.warning(
                "%s task %d repeat %d: attempt %d of %d failed (%s at stage %s: %s); it is played again.",
                job.spec.name, job.task_index, job.repeat, attempt, self.retries + 1,
                failure.kind, failure.stage, failure.message,
            )  # fmt: skip
            if await self.drain.wait(self._pause(job, attempt)):
                return rollout
            self.summary.retried += 1
        return await self._attempt(job, self.retries + 1, rollout)

    async def _attempt(self, job: Job, attempt: int, earlier: Rollout | None) -> Rollout:
        try:
            rollout = await guard("seed", self._play_once, job, attempt)
        except EpisodeFailed as error:
            identity = {"task_index": job.task_index, "repeat": job.repeat, "attempt": attempt}
            rollout = failed_before_opening(job.spec, job.task, error, **identity)
        if earlier is not None:
            rollout.add_earlier(earlier)
        return rollout

    async def _play_once(self, job: Job, attempt: int) -> Rollout:
        return await play(
            job.spec, job.task, self.model, agent=self.agent, limits=self.limits,
            task_index=job.task_index, repeat=job.repeat, attempt=attempt,
        )  # fmt: skip

    def _pause(self, job: Job, attempt: int) -> float:
        jitter = Random(f"{job.task.id}:{job.repeat}:{attempt}").uniform(0.5, 1.0)
        return min(self.retry_seconds * 2 ** (attempt - 1), _MAX_PAUSE_SECONDS) * jitter


@dataclass(slots=True)
class _Run:
    jobs: Iterator[Job]
    player: Player
    record: Callable[[Rollout], None] | None
    on_rollout: Callable[[Rollout], None] | None
    summary: Summary
    drain: Drain
    source_error: GymrailError | None = None
    breathed_at: float = 0.0

    async def work(self) -> None:
        """Play jobs until there are none; all workers share one iterator."""
        summary = self.summary
        while (job := self._next()) is not None:
            summary.asked += 1
            status = "cancelled"
            try:
                rollout = await self.player.play(job)
                if self.record is not None:
                    self.record(rollout)
                assert rollout.outcome is not None
                status = rollout.outcome.status
            finally:
                setattr(summary, status, getattr(summary, status) + 1)
            if self.on_rollout is not None:
                self.on_rollout(rollout)
            await self._breathe()

    async def _breathe(self) -> None:
        """Let others run: episodes that never wait would keep the event loop, and no cancellation would arrive."""
        now = time.monotonic()
        if now - self.breathed_at > _BREATH_SECONDS:
            self.breathed_at = now
            await asyncio.sleep(0)

    def _next(self) -> Job | None:
        if self.drain.is_requested:
            return None
        try:
            return next(self.jobs, None)
        except GymrailError as error:
            self.source_error = error
            return None
