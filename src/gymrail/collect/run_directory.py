"""The directory of one run: its configuration, its tasks, its rollouts, its failures, its metrics.

runs/<name>/config.yaml      settings as resolved, secrets removed; versions of packages and environments, hashes of
                             datasets; every resume (`run_config`)
            tasks.jsonl      every task that was handed out to be played, once (`tasks_file`)
            rollouts.jsonl   scored and truncated rollouts, each key once
            failures.jsonl   failed ones, with `_ng_failure_class`; a later success supersedes them
            metrics.json

In a run that began with `compress`, the three are zstd files: `tasks.jsonl.zst` and so on (`compressed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson

from gymrail.collect.compressed import SUFFIX
from gymrail.collect.done import Done
from gymrail.collect.finished import Finished, finished_of_row
from gymrail.collect.journal import Journal, Key, encode_row, key_of_row, read_rows
from gymrail.collect.run_config import (
    CONFIG,
    REMOVED,
    described,
    environments_in,
    read_config,
    replace_file,
    unchanged_datasets,
    without_secrets,
    write_config,
)
from gymrail.collect.tasks_file import TasksFile
from gymrail.data.jsonl import write_lines
from gymrail.errors import InputError
from gymrail.rollout import Rollout, Status
from gymrail.spec import EnvironmentSpec

if TYPE_CHECKING:
    from gymrail.collect.runner import Job

__all__ = ["CONFIG", "FAILURES", "METRICS", "REMOVED", "ROLLOUTS", "TASKS", "RunDirectory", "without_secrets"]

TASKS, ROLLOUTS, FAILURES, METRICS = "tasks.jsonl", "rollouts.jsonl", "failures.jsonl", "metrics.json"


class RunDirectory:
    """A run's files. `create` opens them for writing, `open` for reading alone."""

    def __init__(
        self,
        path: Path,
        rollouts: Journal | None = None,
        failures: Journal | None = None,
        tasks: TasksFile | None = None,
        unchanged: frozenset[str] = frozenset(),
    ) -> None:
        self.path = path
        self.unchanged = unchanged
        """The environments whose tasks come from the same dataset as when the run began."""
        self._rollouts = rollouts
        self._failures = failures
        self._tasks = tasks
        self._done: Done | None = None
        self._done_bytes = 0
        """Size of the file that `_done` is of."""

    @classmethod
    def create(
        cls,
        path: Path,
        config: Mapping[str, Any],
        *,
        environments: Iterable[EnvironmentSpec] = (),
        datasets: Mapping[str, str] | None = None,
        execution: Mapping[str, Any] | None = None,
        resume: bool = False,
        fsync: bool = False,
        compress: bool = False,
    ) -> Self:
        """Open a run for writing; with `resume`, an existing one goes on, and one that does not exist begins.

        Args:
            datasets: by environment, a hash of what its tasks come from, such as `JobPlan.datasets`.
            execution: settings that no result depends on, such as the concurrency: a resumed run may have others.
            compress: write zstd files. A run that goes on keeps the form that it has.

        Raises:
            InputError: the directory holds a run and `resume` is not set, or another process writes it, or `compress`
                is set and the run is not compressed.
            JournalError: the directory cannot be written.
        """
        found = _form(path, ROLLOUTS)
        if (found is not None or (path / CONFIG).exists()) and not resume:
            raise InputError(
                f"'{path}' already holds a run. "
                "Run the same command with --resume to go on with it, or name another directory."
            )
        if compress and found == "":
            raise InputError(
                f"The run '{path}' is not compressed, and a run has one form: "
                "leave out --compress to go on with it, or name another directory."
            )
        suffix = found if found is not None else SUFFIX if compress else ""
        with ExitStack() as opened:
            rollouts = opened.enter_context(Journal.open(path / f"{ROLLOUTS}{suffix}", fsync=fsync))
            before = read_config(path / CONFIG)
            write_config(path / CONFIG, described(config, environments, datasets or {}, execution))
            failures = opened.enter_context(Journal.open(_file(path, FAILURES, suffix), fsync=fsync))
            opened.pop_all()
        return cls(
            path,
            rollouts,
            failures,
            TasksFile(_file(path, TASKS, suffix), fsync=fsync),
            unchanged_datasets(before, datasets or {}),
        )

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run for reading; it may be running.

        Raises:
            InputError: there is no run.
        """
        if _form(path, ROLLOUTS) is None:
            raise InputError(
                f"'{path}' holds no run: '{ROLLOUTS}' is missing. "
                f"`gymrail rollout ENV --model MODEL --run {path}` makes one."
            )
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        """The settings that the run was started with."""
        return read_config(self.path / CONFIG).get("config") or {}

    @property
    def datasets(self) -> dict[str, str]:
        """By environment, the hash of what its tasks came from when the run began."""
        return read_config(self.path / CONFIG).get("datasets") or {}

    @property
    def environments(self) -> set[str]:
        """The names of the environments that the run was played with."""
        return environments_in(read_config(self.path / CONFIG)) or self.done.environments

    @property
    def done(self) -> Done:
        """The keys of scored and truncated rollouts, as the file has them now: what a resumed run leaves out. Failed
        ones are played again."""
        file = _file(self.path, ROLLOUTS)
        if self._done is None or self._done_bytes != file.stat().st_size:
            size = file.stat().st_size
            self._done, self._done_bytes = Done(map(key_of_row, read_rows(file))), size
        return self._done

    def finished(self) -> Iterator[Finished]:
        """Yield what is kept of each scored or truncated rollout; `done` then needs no further pass over the file."""
        file = _file(self.path, ROLLOUTS)
        size, done = file.stat().st_size, Done()
        for row in read_rows(file):
            finished = finished_of_row(row)
            done.add(finished.key)
            yield finished
        self._done, self._done_bytes = done, size

    def failed(self) -> Iterator[Finished]:
        """Yield what is kept of every failure, superseded ones too: all of them cost something."""
        file = _file(self.path, FAILURES)
        return map(finished_of_row, read_rows(file)) if file.exists() else iter(())

    def remaining(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Yield the jobs that are not done; in a run that is open for writing their tasks are in `tasks.jsonl` then.

        The jobs of one task come together, and no job comes twice. What is recorded from here on is not looked at.
        """
        done = self.done
        self._done = None  # the caller may play for days; the iterator lets go of it at its end
        return self._handing_out(jobs, done)

    def _handing_out(self, jobs: Iterable[Job], done: Done) -> Iterator[Job]:
        for job in jobs:
            if job.key not in done:
                if self._tasks is not None:
                    self._tasks.add(job)
                yield job

    def record(self, rollout: Rollout) -> None:
        """Write a finished rollout to its file; it is durable when this returns.

        Raises:
            JournalError: it cannot be written.
        """
        assert rollout.outcome is not None, "a rollout is recorded once it has an outcome"
        self._journal_for(rollout.outcome.status).append(rollout)

    def record_line(self, line: bytes, finished: Finished) -> None:
        """Write a finished rollout that is encoded already, as `record` does.

        Raises:
            JournalError: it cannot be written.
        """
        self._journal_for(finished.status).append_line(line)

    def _journal_for(self, status: Status) -> Journal:
        journal = self._failures if status == "failed" else self._rollouts
        if journal is None:
            raise InputError(
                f"The run '{self.path}' is open for reading; "
                "RunDirectory.create(..., resume=True) opens it for writing."
            )
        return journal

    def rollouts(self) -> Iterator[Rollout]:
        """Yield one rollout per key: what was scored or truncated, then the last failure of what never was."""
        return map(Rollout.from_row, self.rows())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of `rollouts`, as they stand in the files."""
        failures = _file(self.path, FAILURES)
        last: dict[Key, int] = {}
        if failures.exists():
            last = {key_of_row(row): place for place, row in enumerate(read_rows(failures))}
        for row in read_rows(_file(self.path, ROLLOUTS)):
            if last:
                last.pop(key_of_row(row), None)
            yield row
        if last:
            for place, row in enumerate(read_rows(failures)):
                if last.get(key_of_row(row)) == place:
                    yield row

    def tasks(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the tasks that were handed out; none where the run was not planned."""
        file = _file(self.path, TASKS)
        return read_rows(file) if file.exists() else iter(())

    def copy_tasks(self, run: RunDirectory) -> None:
        """Take over another run's tasks as they are, where this one has none."""
        if not _file(self.path, TASKS).exists():
            write_lines(map(encode_row, run.tasks()), self.path / TASKS)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Replace the run's metrics."""
        replace_file(self.path / METRICS, orjson.dumps(metrics, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def metrics(self) -> dict[str, Any]:
        """Return the run's metrics; empty before they were written."""
        file = self.path / METRICS
        return orjson.loads(file.read_bytes()) if file.exists() else {}

    def close(self) -> None:
        """Give the files back; safe to call again."""
        for file in (self._tasks, self._failures, self._rollouts):
            if file is not None:
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _form(path: Path, name: str) -> str | None:
    """The suffix that a run's file has: "" or that of zstd; None where it does not exist.

    Raises:
        InputError: it is there in both forms.
    """
    forms = [suffix for suffix in ("", SUFFIX) if (path / f"{name}{suffix}").is_file()]
    if len(forms) > 1:
        raise InputError(f"'{path}' holds both '{name}' and '{name}{SUFFIX}'; a run has one of them: remove the other.")
    return forms[0] if forms else None


def _file(path: Path, name: str, default: str = "") -> Path:
    form = _form(path, name)
    return path / f"{name}{default if form is None else form}"
