"""What a run is to play: a stream of jobs that are made as they are taken.

    plan = JobPlan([Source(spec, "train", limit=1_000_000)], repeats=8)
    plan.check(path)
    with RunDirectory.create(path, config, environments=[spec], datasets=plan.datasets, resume=True) as run:
        await collect(plan.remaining(run), model, record=run.record)

Environments take turns task by task, so that means are about all of them from the start, and a task's repeats come
together, so that groups do. A bad row is found before anything is played where it is among a dataset's first
`CHECKED_TASKS`; a later one ends the stream, and what is being played then is finished (see `runner.collect`).

A resumed run compares every task with what is done by its content, with one exception: where a generator's code,
settings, split and seed are what they were when the run began, tasks whose repeats are all done are not made again.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import logging
import os
import platform
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gymrail import __version__
from gymrail.collect.done import Done, Places, task_number
from gymrail.collect.finished import Finished
from gymrail.collect.journal import Key
from gymrail.collect.run_config import CONFIG, read_config, unchanged_datasets
from gymrail.collect.run_directory import RunDirectory
from gymrail.collect.runner import Job
from gymrail.data.jsonl import open_binary
from gymrail.data.sources import dataset_files, prompt_file
from gymrail.errors import InputError
from gymrail.spec import DatasetEntry, EnvironmentSpec
from gymrail.task import Task

logger = logging.getLogger(__name__)

CHECKED_TASKS = 100_000
"""Of a dataset; about a second's work."""
_CHECKED_GENERATED = 1_000
_COMPARED = 16
"""Done tasks that are made again to see whether a generator still makes the same."""


@dataclass(frozen=True, slots=True)
class Source:
    """One environment's tasks."""

    spec: EnvironmentSpec
    split: str
    limit: int | None = None
    """How many at most; None for the whole split."""
    seed: int = 0

    @property
    def entry(self) -> DatasetEntry | None:
        """The manifest's dataset of the split."""
        return next((entry for entry in self.spec.manifest.datasets if entry.split == self.split), None)

    @property
    def is_generated(self) -> bool:
        return self.entry is None or self.entry.source == "generator"

    @property
    def size(self) -> int | None:
        """How many tasks a generator makes; None where a dataset's end decides."""
        if not self.is_generated or self.limit is not None:
            return self.limit if self.is_generated else None
        return self.entry.size if self.entry is not None else None

    def tasks(self) -> Iterator[Task]:
        """Yield them; raises what `EnvironmentSpec.tasks` raises."""
        return self.spec.tasks(self.split, limit=self.limit, seed=self.seed)


class JobPlan:
    """Every rollout of a run, in order; iterating over it makes the tasks anew."""

    def __init__(self, sources: Sequence[Source], repeats: int = 1) -> None:
        """
        Raises:
            InputError: a whole split is asked for where tasks are generated without end.
        """
        self.sources = list(sources)
        self.repeats = repeats
        self._counted: dict[str, int] = {}
        for source in self.sources:
            if source.spec.is_generated and source.is_generated and source.size is None:
                raise InputError(
                    f"{source.spec.name} generates as many {source.split} tasks as asked for; say how many: --tasks N."
                )

    def check(self, run: Path | None = None) -> None:
        """Look for mistakes before anything is played: in a dataset's first `CHECKED_TASKS`, in a generator's first
        thousand.

        Args:
            run: a run directory that may exist; a dataset that is the same since it began was checked then.

        Raises:
            InputError: a split is missing or empty, or a row is bad.
        """
        checked = unchanged_datasets(read_config(run / CONFIG), self.datasets) if run is not None else frozenset()
        for source in self.sources:
            most = _CHECKED_GENERATED if source.is_generated else CHECKED_TASKS
            most = 1 if source.spec.name in checked else most
            count = sum(1 for _ in itertools.islice(source.tasks(), most))
            if not count:
                raise InputError(f"The split {source.split!r} of {source.spec.name} has no tasks.")
            if count < most:
                self._counted[source.spec.name] = count

    @property
    def asked(self) -> dict[str, int | None]:
        """By environment, how many rollouts there will be; None where only the end of its dataset will tell."""
        found: dict[str, int | None] = {}
        for source in self.sources:
            tasks = source.size
            if tasks is None:
                tasks = self._counted.get(source.spec.name)
            if tasks is None:
                tasks = _count_rows(source)
            found[source.spec.name] = None if tasks is None else tasks * self.repeats
        return found

    @cached_property
    def datasets(self) -> dict[str, str]:
        """By environment, a hash of what its tasks come from; left out where nothing tells (a table on the hub, a class
        without a source file)."""
        hashes = ((source.spec.name, _content_hash(source)) for source in self.sources)
        return {name: content for name, content in hashes if content is not None}

    def __iter__(self) -> Iterator[Job]:
        return self._jobs({})

    def remaining(self, run: RunDirectory) -> Iterator[Job]:
        """Yield the jobs that the run has not done; see `RunDirectory.remaining`."""
        done = run.done
        played = {name: done.places(name) for name in self._trusted(run, done)}
        return run.remaining(self._jobs(played))

    def finished(self, run: RunDirectory) -> Iterator[Finished]:
        """Yield what is known of the rollouts that the run has done already and that are asked for here.

        One pass over the run's file, after which `remaining` needs none.
        """
        asked = {source.spec.name: _Asked(source, self.repeats, run.unchanged) for source in self.sources}
        for finished in run.finished():
            mine = asked.get(finished.key.environment)
            if mine is not None and mine.has(finished.key):
                yield finished

    def _jobs(self, played: Mapping[str, Places]) -> Iterator[Job]:
        takes_turns = len(self.sources) > 1
        going = [
            (source, _tasks(source, played.get(source.spec.name), self.repeats, takes_turns)) for source in self.sources
        ]
        while going:
            still = []
            for source, stream in going:
                found = next(stream, None)
                if found is None:
                    continue
                still.append((source, stream))
                if found is not _SKIPPED:
                    index, task = found
                    for repeat in range(self.repeats):
                        yield Job(source.spec, task, index, repeat)
            going = still

    def _trusted(self, run: RunDirectory, done: Done) -> Iterator[str]:
        """The environments whose done tasks need not be made again."""
        for source in self.sources:
            name = source.spec.name
            if source.is_generated and name in run.unchanged:
                if _makes_the_same(source, done):
                    yield name
                else:
                    logger.warning(
                        "%s: %s generates other tasks than before, though its files did not change; what is done of "
                        "them is left out by content.", run.path, name,
                    )  # fmt: skip


_Place = tuple[int, Task]
_SKIPPED: _Place = (-1, Task(responses_create_params={}))
"""A task whose repeats are all done."""


def _tasks(source: Source, played: Places | None, repeats: int, takes_turns: bool) -> Iterator[_Place]:
    """Yield tasks with their indices; with `played`, tasks whose repeats are all done are not made, and are `_SKIPPED`
    where that takes a turn."""
    if played is None:
        yield from enumerate(source.tasks())
        return
    for index in itertools.count() if source.size is None else range(source.size):
        if not played.has_all(index, repeats):
            yield index, source.spec.generate(source.split, index, source.seed)
        elif takes_turns:
            yield _SKIPPED


def _makes_the_same(source: Source, done: Done) -> bool:
    places = done.places(source.spec.name)
    last = min(places.highest, (source.size or 0) - 1)
    for index in sorted({last * part // _COMPARED for part in range(_COMPARED + 1)}):
        if index >= 0 and places.has_all(index, 1):
            task = source.spec.generate(source.split, index, source.seed)
            if not places.has(index, task.id, 0):
                return False
    return True


class _Asked:
    """Whether a rollout on disk is one of those that are asked for."""

    def __init__(self, source: Source, repeats: int, unchanged: Iterable[str]) -> None:
        self._source = source
        self._repeats = repeats
        self._is_unchanged = source.spec.name in unchanged
        self._most = source.size if source.is_generated else source.limit

    def has(self, key: Key) -> bool:
        if not 0 <= key.repeat < self._repeats or key.task_index < 0:
            return False
        if self._is_unchanged:
            return self._most is None or key.task_index < self._most
        numbers = self._numbers
        if key.task_index >= len(numbers):
            return False
        return numbers[key.task_index] == task_number(key.task_id)

    @cached_property
    def _numbers(self) -> array[int]:
        """The ids of today's tasks; made only where the dataset is another one than before."""
        return array("Q", (int(task.id, 16) for task in self._source.tasks()))


def _count_rows(source: Source) -> int | None:
    files = dataset_files(source.entry, source.spec) if source.entry is not None else None
    if files is None or len(files) != 1 or not files[0].name.endswith((".jsonl", ".jsonl.gz")):
        return None
    with open_binary(files[0]) as lines:
        return sum(1 for _ in itertools.islice((line for line in lines if not line.isspace()), source.limit))


def _content_hash(source: Source) -> str | None:
    digest = hashlib.blake2b(digest_size=16)
    entry, spec = source.entry, source.spec
    if entry is None or source.is_generated:
        file = None if spec.path is not None else _source_file(spec.cls)
        if spec.path is None and file is None:
            return None
        # The library's own part in making a task, and the language's, whose `random` may change.
        own = (__version__, *platform.python_version_tuple()[:2])
        digest.update(repr(("generator", source.split, source.seed, spec.version, *own)).encode())
        files = [file] if file is not None else []
    else:
        found = dataset_files(entry, spec)
        if found is None:
            return None
        prompt = prompt_file(entry, spec)
        files = found if prompt is None else [*found, prompt]
        digest.update(repr((entry.source, len(found), len(files))).encode())
    for path in files:
        _hash_file(path, digest.update)
    return digest.hexdigest()


def _source_file(cls: type) -> Path | None:
    try:
        file = inspect.getsourcefile(cls)
    except (TypeError, OSError):
        return None
    return Path(file) if file is not None and os.path.isfile(file) else None


def _hash_file(path: Path, update: Callable[[bytes], None]) -> None:
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                update(chunk)
    except OSError as error:
        raise InputError(f"Cannot read '{path}': {error.strerror or error}.") from None
