"""A worker's side, whatever carries its messages: takes orders, plays, reports.

station = Station(slots)
await station.open(setup)        # then, together:
station.accept(message)          # whenever one comes
message = await station.report() # again and again, until `is_closed`
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter, deque
from typing import Any

from gymrail.agents.tool_loop import Agent
from gymrail.collect.drain import Drain
from gymrail.collect.executors.messages import Assignment, Note, Report, Result, unpack_orders
from gymrail.collect.executors.queue import add_losses
from gymrail.collect.executors.setup import unpack_setup
from gymrail.collect.finished import finished_of
from gymrail.collect.journal import encode
from gymrail.collect.runner import Job, Player, Summary
from gymrail.errors import EpisodeFailed, InputError, guard
from gymrail.models.model import EpisodePolicy, Model
from gymrail.play import failed_before_opening
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

HEARTBEAT_SECONDS = 5.0
"""A report is sent at least so often."""
_LINGER_SECONDS = 0.01
"""Between two reports: what finishes within it travels together."""
_NOTES = 3
"""Warnings of one kind that are passed on; the run's process shows no more either."""


class Station:
    """Plays up to `slots` jobs at once; what else it has been given waits."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.is_closed = False
        """The last report was taken."""
        self._specs: dict[str, EnvironmentSpec] = {}
        self._player: Player | None = None
        self._is_traced = False
        self._drain, self._summary = Drain(), Summary()
        self._waiting: deque[Assignment] = deque()
        self._playing: dict[int, asyncio.Task[None]] = {}
        self._outbox, self._retried = Report(), 0
        self._news, self._told_at = asyncio.Event(), 0.0
        self._closing: asyncio.Task[None] | None = None
        self._last_task: tuple[dict[str, Any], Task] | None = None

    async def open(self, setup: bytes) -> bool:
        """Build what it plays with; return whether that worked. The first report says it too, with the reason."""
        logging.getLogger("gymrail").addHandler(_Notes(self))
        try:
            await guard("setup", self._build, setup)
            self._outbox.is_ready = True
        except EpisodeFailed as error:
            self._outbox.problem, self._outbox.is_closed = error.failure.message, True
        self._news.set()
        return self._outbox.is_ready

    def accept(self, message: bytes) -> None:
        """Take orders."""
        orders = unpack_orders(message)
        if orders.command == "drain":
            self._drain.request("the run is ending")
            self._outbox.returned += [assignment.number for assignment in self._waiting]
            self._waiting.clear()
            self._news.set()
        elif orders.command is not None and self._closing is None:
            self.close(cancel=orders.command == "cancel")
        self._waiting.extend(orders.jobs)
        self._fill()

    async def report(self) -> bytes:
        """Wait for something to tell, or for the time of a sign of life, and return it."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._news.wait()
        except TimeoutError:
            pass
        pause = self._told_at + _LINGER_SECONDS - time.monotonic()
        if pause > 0 and not self._outbox.is_closed:
            await asyncio.sleep(pause)
        self._told_at = time.monotonic()
        self._news.clear()
        report, self._outbox = self._outbox, Report()
        report.retried = self._summary.retried - self._retried
        self._retried = self._summary.retried
        if self._player is not None:
            report.loads = getattr(self._player.model, "loads", {})
        self.is_closed = report.is_closed
        return report.pack()

    def close(self, *, cancel: bool) -> None:
        """Give back what waits, finish or cancel what is played, close everything; the last report says that it is
        done."""
        if cancel:
            self._waiting.clear()  # first: a library may swallow a cancellation, and nothing may follow that job
            for task in self._playing.values():
                task.cancel()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())

    async def _close(self) -> None:
        while self._playing:
            await asyncio.wait(self._playing.values())
        if self._player is not None:
            for part in (self._player.agent, self._player.model):
                close = getattr(part, "close", None)
                if close is not None:
                    await _quietly(close)
        for spec in self._specs.values():
            await _quietly(spec.teardown)
        if self._is_traced:
            from gymrail.tracing import stop_tracing

            await asyncio.to_thread(stop_tracing)
        self._outbox.is_closed = True
        self._news.set()

    def _build(self, message: bytes) -> None:
        setup = unpack_setup(message)
        os.environ.update(setup.variables)
        for source in setup.environments:
            spec = source.load()
            if spec.version != source.version:
                raise InputError(
                    f"{source.name} is another one in the worker (version {spec.version}) than where the run began "
                    f"({source.version}): its files were changed, or this machine has others. "
                    "Start the run again, with --resume."
                )
            self._specs[source.name] = spec
        model: Model | EpisodePolicy = setup.model()
        agent: Agent = setup.agent()
        if setup.traced_as is not None:
            from gymrail.tracing import start_tracing

            start_tracing(run=setup.traced_as)
            self._is_traced = True
        self._player = Player(
            model, agent, setup.limits, setup.retries, setup.retry_seconds, self._summary, self._drain
        )

    def _job(self, assignment: Assignment) -> Job:
        spec = self._specs[assignment.environment]
        if self._last_task is None or self._last_task[0] is not assignment.row:
            self._last_task = assignment.row, spec.cls.task_type.from_row(assignment.row)
        return Job(spec, self._last_task[1], assignment.task_index, assignment.repeat)

    def _fill(self) -> None:
        while self._waiting and len(self._playing) < self.slots:
            assignment = self._waiting.popleft()
            self._playing[assignment.number] = asyncio.create_task(self._play(assignment))

    async def _play(self, assignment: Assignment) -> None:
        try:
            rollout = await self._rollout(assignment)
            self._outbox.results.append(Result(assignment.number, encode(rollout), finished_of(rollout)))
            self._news.set()
        finally:
            del self._playing[assignment.number]
            self._fill()

    async def _rollout(self, assignment: Assignment) -> Rollout:
        assert self._player is not None
        try:
            job = await guard("seed", self._job, assignment)
        except EpisodeFailed as error:  # a task that cannot be read from its own row
            return failed_before_opening(
                self._specs[assignment.environment], Task.from_row(assignment.row), error,
                task_index=assignment.task_index, repeat=assignment.repeat,
            )  # fmt: skip
        rollout = await self._player.play(job)
        add_losses(rollout, assignment.lost)
        return rollout


async def _quietly(close: Any) -> None:
    try:
        await guard("close", close)
    except EpisodeFailed as error:
        logging.getLogger(__name__).warning("A worker's %s", error)


class _Notes(logging.Handler):
    """Passes warnings on to the run's process."""

    def __init__(self, station: Station) -> None:
        super().__init__(logging.WARNING)
        self.station = station
        self.seen: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        text = str(record.msg)
        self.seen[text] += 1
        if self.seen[text] > _NOTES:
            return
        arguments = record.args if isinstance(record.args, tuple) else ()
        plain = tuple(value if isinstance(value, int | float | str) else str(value) for value in arguments)
        self.station._outbox.notes.append(Note(record.name, record.levelno, text, plain))
        self.station._news.set()
