"""A run with several workers: jobs go out in batches, encoded rollouts come back, this process alone writes them.

    setup = Setup([source_of(spec)], partial(build_model, "oracle"))
    await collect_with_workers(jobs, setup, Processes(), workers=4, record=folder.record_line)

A lost worker is replaced, and what it had is played again, by other workers too.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gymrail.collect.drain import Drain
from gymrail.collect.executors.launcher import Launcher, Worker, WorkerLost
from gymrail.collect.executors.messages import Assignment, Command, Orders, Report, unpack_report
from gymrail.collect.executors.queue import Queue, Ticket, add_losses
from gymrail.collect.executors.setup import Setup
from gymrail.collect.finished import Finished, finished_of
from gymrail.collect.journal import JournalError, encode
from gymrail.collect.runner import Job, Summary
from gymrail.errors import EpisodeFailed, Failure, InfrastructureError, InputError
from gymrail.models.pace import Load
from gymrail.play import failed_before_opening

logger = logging.getLogger(__name__)

MAX_LOSSES_IN_A_ROW = 6
"""Workers lost in one place with no rollout finished anywhere in between: then it is no job's doing, and the run
ends."""
_AHEAD_SECONDS = 0.1
"""A worker holds as many waiting jobs as it plays in this time: none where episodes are long."""
_AHEAD = 256
_PACE_SECONDS = 0.5
_CLOSE_SECONDS = 10.0
"""What cancelled workers get to close their episodes; then they are killed."""
_SETUP_SECONDS = 3600.0
_SLACK_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.05


async def collect_with_workers(
    jobs: Iterable[Job],
    setup: Setup,
    launcher: Launcher,
    *,
    workers: int,
    concurrency: int = 64,
    record: Callable[[bytes, Finished], None] | None = None,
    on_finished: Callable[[Finished], None] | None = None,
    loads: dict[int, Mapping[str, Load]] | None = None,
    summary: Summary | None = None,
    drain: Drain | None = None,
) -> Summary:
    """Play the jobs on `workers` workers, `concurrency` at once in all, and return what became of them.

    Args:
        jobs: may be endless; read as far as there is room to play. Each one's environment is in `setup`.
        record: makes a rollout durable; called once per job, before it is counted. What it raises stops the run.
        on_finished: told of each rollout after that.
        loads: kept filled with how busy each worker keeps its model's endpoints, by the worker's number.
        summary: filled instead of a new one.
        drain: once requested, no job is taken; what is being played is finished.

    Raises:
        asyncio.CancelledError: cancelled; every episode is closed, what was played half is counted as `cancelled`.
        InputError: a worker cannot load what it plays with.
        InfrastructureError: workers are lost again and again.
        GymrailError: `jobs` has no next job (a bad row); what is being played is finished and recorded first.
    """
    if workers < 1 or concurrency < 1 or setup.retries < 0:
        raise InputError(
            f"workers is {workers!r}, concurrency {concurrency!r}, retries {setup.retries!r}; "
            "at least 1, 1 and 0 are needed."
        )
    count = min(workers, concurrency)
    seats = [_Seat(number, concurrency // count + (number < concurrency % count)) for number in range(count)]
    summary = Summary() if summary is None else summary
    drain = drain or Drain()
    loads = {} if loads is None else loads
    pool = _Pool(setup, launcher, Queue(iter(jobs), drain), drain, seats, record, on_finished, loads, summary)
    started = time.monotonic()
    try:
        await pool.run(setup.pack())
    finally:
        summary.seconds += time.monotonic() - started
        assert summary.asked == summary.finished, f"a rollout was lost or doubled: {summary}"
    if pool.queue.error is not None:
        raise pool.queue.error
    return summary


@dataclass(slots=True)
class _Seat:
    """A place for a worker; who sits there is replaced when lost."""

    number: int
    slots: int
    worker: Worker | None = None
    is_ready: bool = False
    held: dict[int, Ticket] = field(default_factory=dict)
    """What its worker has and has not reported."""
    pace: float = 0.0
    """Rollouts per second."""
    heard_at: float = 0.0
    seen: set[str] = field(default_factory=set)
    """Environments that its worker has finished a rollout of."""
    losses: int = 0
    """In a row."""
    finished_before: int = 0
    """Rollouts of the whole run at the last of them."""
    taking: asyncio.Task[bytes] | None = None
    """The report that is awaited; whoever gives up waiting leaves it to the next."""

    async def take(self, worker: Worker) -> Report:
        """Wait for its worker's next report."""
        if self.taking is None:
            self.taking = asyncio.create_task(worker.take())
        message = await asyncio.shield(self.taking)
        self.taking = None
        return unpack_report(message)

    async def leave(self) -> None:
        """Kill its worker."""
        if self.worker is not None:
            await self.worker.kill()
        if self.taking is not None:
            self.taking.cancel()
            await asyncio.wait([self.taking])
            if not self.taking.cancelled():
                self.taking.exception()
        self.worker, self.taking, self.is_ready, self.pace = None, None, False, 0.0
        self.seen.clear()

    @property
    def ahead(self) -> int:
        return min(int(self.pace * _AHEAD_SECONDS), _AHEAD)

    def hear(self, finished: int) -> None:
        """Learn its pace from how much it reports."""
        now = time.monotonic()
        if finished and now > self.heard_at:
            seconds = now - self.heard_at
            self.pace += (1 - math.exp(-seconds / _PACE_SECONDS)) * (finished / seconds - self.pace)
            self.heard_at = now


@dataclass(slots=True)
class _Pool:
    setup: Setup
    launcher: Launcher
    queue: Queue
    drain: Drain
    seats: list[_Seat]
    record: Callable[[bytes, Finished], None] | None
    on_finished: Callable[[Finished], None] | None
    loads: dict[int, Mapping[str, Load]]
    summary: Summary
    over: asyncio.Event = field(default_factory=asyncio.Event)
    is_recording: bool = True
    """False once that failed: what still comes in is played again by a resumed run."""

    async def run(self, setup: bytes) -> None:
        staff = [asyncio.create_task(self._staff(seat, setup)) for seat in self.seats]
        watch = asyncio.create_task(self._watch_drain())
        over = asyncio.create_task(self.over.wait())
        command: Command = "cancel"
        try:
            await asyncio.wait([over, *staff], return_when=asyncio.FIRST_COMPLETED)
            for task in staff:
                if task.done():
                    self.is_recording = not isinstance(task.exception(), JournalError)
                    task.result()
            command = "stop"
        finally:
            for task in (watch, over, *staff):
                task.cancel()
            await asyncio.gather(watch, over, *staff, return_exceptions=True)
            await self._dismiss_all(command)

    async def _staff(self, seat: _Seat, setup: bytes) -> None:
        """Keep a worker in the seat; ends by an error alone."""
        while True:
            try:
                seat.worker = await self.launcher.start(setup, seat.slots)
                await self._attend(seat, seat.worker)
            except WorkerLost as error:
                await self._replace(seat, error)

    async def _attend(self, seat: _Seat, worker: Worker) -> None:
        while True:
            report = await self._take(seat, worker)
            if report.problem is not None:
                raise InputError(f"A worker cannot start: {report.problem}")
            if report.is_ready:
                seat.is_ready, seat.heard_at = True, time.monotonic()
            self._book(seat, report)
            if report.is_closed:
                raise WorkerLost("it closed without being told to")
            self._fill(seat)

    async def _take(self, seat: _Seat, worker: Worker) -> Report:
        """The next report. One that is silent for longer than any episode may take hangs in code that never yields."""
        patience = self.setup.limits.episode_seconds + _SLACK_SECONDS
        if len(seat.seen) < len(self.setup.environments):
            patience += _SETUP_SECONDS  # loading what episodes share may block a worker for long
        try:
            async with asyncio.timeout(patience):
                return await seat.take(worker)
        except TimeoutError:
            raise WorkerLost(f"it gave no sign of life for {patience:.0f} s, as where a tool never returns") from None

    async def _replace(self, seat: _Seat, error: WorkerLost) -> None:
        await seat.leave()
        self.loads.pop(seat.number, None)
        lost = list(seat.held.values())
        seat.held.clear()
        logger.warning("A worker was lost (%s); another starts, and %d rollouts are played again.", error, len(lost))
        for ticket in self.queue.put_back(seat.number, lost, str(error)):
            self._fail(ticket, error)
        finished = self.summary.finished
        seat.losses = seat.losses + 1 if seat.finished_before == finished else 1
        seat.finished_before = finished
        if seat.losses > MAX_LOSSES_IN_A_ROW:
            raise InfrastructureError(
                f"{seat.losses} workers were lost one after the other without finishing a rollout; the last: {error}."
            )
        if self.drain.is_requested:
            self.summary.asked -= self.queue.clear()
        for other in self.seats:
            self._fill(other)
        await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2 ** (seat.losses - 1))

    def _fill(self, seat: _Seat) -> None:
        if seat.worker is not None and seat.is_ready:
            tickets = self.queue.take(seat.number, seat.held, seat.slots, seat.ahead)
            if tickets:
                self.summary.asked += sum(ticket.losses == 0 for ticket in tickets)
                seat.held.update((ticket.number, ticket) for ticket in tickets)
                seat.worker.give(Orders([_assignment(ticket) for ticket in tickets]).pack())
        if self.queue.is_empty and not any(seat.held for seat in self.seats):
            self.over.set()

    def _book(self, seat: _Seat, report: Report) -> None:
        self.summary.retried += report.retried
        self.loads[seat.number] = report.loads
        for note in report.notes:
            logging.getLogger(note.logger).log(note.level, note.text, *note.arguments)
        for number in report.returned:
            del seat.held[number]
            self.summary.asked -= 1
        for number, line, finished in report.results:
            if self.record is not None:
                self.record(line, finished)
            del seat.held[number]
            seat.seen.add(finished.key.environment)
            self._count(finished)
        seat.hear(len(report.results))

    def _count(self, finished: Finished) -> None:
        setattr(self.summary, finished.status, getattr(self.summary, finished.status) + 1)
        if self.on_finished is not None:
            self.on_finished(finished)

    def _fail(self, ticket: Ticket, error: WorkerLost) -> None:
        job = ticket.job
        message = f"{ticket.losses} workers were lost while they played this rollout, the last one alone ({error})"
        rollout = failed_before_opening(
            job.spec, job.task, EpisodeFailed(Failure("infrastructure", "seed", message)),
            task_index=job.task_index, repeat=job.repeat,
        )  # fmt: skip
        add_losses(rollout, ticket.lost[:-1])
        finished = finished_of(rollout)
        if self.record is not None:
            self.record(encode(rollout), finished)
        self._count(finished)

    async def _watch_drain(self) -> None:
        await self.drain.wait()
        self.summary.asked -= self.queue.clear()
        for seat in self.seats:
            if seat.worker is not None and seat.is_ready:
                seat.worker.give(Orders(command="drain").pack())
        self._fill(self.seats[0])

    async def _dismiss_all(self, command: Command) -> None:
        dismissals = [asyncio.create_task(self._dismiss(seat, command)) for seat in self.seats]
        try:
            await asyncio.gather(*dismissals)
        finally:
            for dismissal in dismissals:
                dismissal.cancel()
            await asyncio.gather(*dismissals, return_exceptions=True)
            self.summary.cancelled += self.queue.clear() + sum(len(seat.held) for seat in self.seats)

    async def _dismiss(self, seat: _Seat, command: Command) -> None:
        """End a worker, and take what it still has to say."""
        worker = seat.worker
        if worker is None or not seat.is_ready:  # one that is starting plays nothing yet
            await seat.leave()
            return
        try:
            worker.give(Orders(command=command).pack())
            async with asyncio.timeout(_CLOSE_SECONDS):
                is_closed = False
                while not is_closed:
                    report = await seat.take(worker)
                    if self.is_recording:
                        self._book(seat, report)
                    is_closed = report.is_closed
        except TimeoutError:
            logger.warning("A worker did not close within %g s and was killed.", _CLOSE_SECONDS)
        except WorkerLost:
            pass  # it is what was wanted
        finally:
            await seat.leave()


def _assignment(ticket: Ticket) -> Assignment:
    job = ticket.job
    return Assignment(ticket.number, job.spec.name, job.task.row, job.task_index, job.repeat, ticket.lost)
