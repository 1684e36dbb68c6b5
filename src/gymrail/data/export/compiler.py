"""Rollouts to training rows, over any number of runs and files, streaming.

First every line is read once into an index on disk, unless each rollout is chosen and written by itself; then what is
chosen is read again and written. What stays in memory is a batch of lines per process and the rollouts of one task.
"""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import orjson

from gymrail.data.contamination import BenchmarkIndex
from gymrail.data.content import NoSuchField
from gymrail.data.export.context import Context, Kind, Row
from gymrail.data.export.destinations import shape
from gymrail.data.export.index import Entry, Index, Place, hashed
from gymrail.data.export.near import signature
from gymrail.data.export.record import Record
from gymrail.data.export.selection import Selection
from gymrail.data.export.sources import BLOCK_BYTES, Block, Source, blocks_of
from gymrail.data.export.work import in_order
from gymrail.data.splits import Splitter
from gymrail.spec import EnvironmentSpec

_ROUNDED = 2
"""Decimals of the rewards that are counted for the histogram."""


@dataclass(frozen=True)
class Plan:
    """What is exported, and how."""

    sources: Sequence[Source]
    kind: Kind
    selection: Selection = field(default_factory=Selection)
    destination: str = "trl"
    keep_reasoning: bool = True
    specs: Mapping[str, EnvironmentSpec] | None = None
    """Environments by name, for the tools of tasks that do not list their own; found by name where absent."""
    processes: int = 1
    validation: float | None = None
    """The share of tasks whose rows are written apart; all rows are for training where absent."""

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train",) if self.validation is None else ("train", "validation")


@dataclass
class Counts:
    """What went in, what came out, and what was left out on the way."""

    read: int = 0
    rows: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    """Rows by split."""
    removed: Counter[str] = field(default_factory=Counter)
    environments: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by environment and its version."""
    runs: Counter[str] = field(default_factory=Counter)
    """Rollouts read, by run."""
    rewards: dict[str, Counter[float]] = field(default_factory=dict)
    """By side ("rows", or "chosen" and "rejected"): how often each reward, rounded to two decimals."""
    labels: Counter[bool] = field(default_factory=Counter)

    def add(self, other: Counts) -> None:
        """Add what another part of the work counted."""
        self.read += other.read
        self.rows += other.rows
        self.splits.update(other.splits)
        self.removed.update(other.removed)
        self.environments.update(other.environments)
        self.runs.update(other.runs)
        self.labels.update(other.labels)
        for side, rewards in other.rewards.items():
            self.rewards.setdefault(side, Counter()).update(rewards)


class _Lines(NamedTuple):
    """Lines that become rows together: one rollout's, or those of one task."""

    lines: list[tuple[int, int, bytes]]
    """Source, number, content."""


class _Made(NamedTuple):
    content: Mapping[str, bytes]
    """Rows as JSONL, by split."""
    counts: Counts


def compile_rows(plan: Plan, folder: Path) -> Iterator[tuple[Mapping[str, bytes], Counts]]:
    """Yield rows as JSONL by split, in pieces, each with what was counted for it.

    Args:
        folder: where the index lies while this runs.

    Raises:
        InputError: a line is no rollout, an environment that is needed is not there, or a benchmark cannot be read.
        TokenError: token rows are asked for and a rollout carries no tokens.
    """
    start = functools.partial(_State, plan)
    if plan.processes > 1:
        start()  # what is wrong with a benchmark is said here, before a process breaks on it
    if not (plan.kind.by_task or plan.selection.compares):
        blocks = (block for source in plan.sources for block in blocks_of(source))
        yield from in_order(_export_block, start, blocks, plan.processes)
        return
    with ExitStack() as opened, tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as scratch:
        index = Index(Path(scratch) / "index.db")
        opened.callback(index.close)
        stores = [_Store(source, Path(scratch) / f"{source.number}.jsonl") for source in plan.sources]
        for store in stores:
            opened.callback(store.close)
        blocks = (block for store in stores for block in store.blocks())
        for entries, counts in in_order(_index_block, start, blocks, plan.processes):
            index.add(entries)
            yield {}, counts
        yield {}, Counts(removed=index.select(plan.selection))
        places = index.tasks() if plan.kind.by_task else ([place] for place in index.places())
        groups = (_Lines([stores[place.source].line(place) for place in group]) for group in places)
        yield from in_order(_export_groups, start, _batches(groups), plan.processes)


class _State:
    """What a process keeps between batches."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.context = Context(plan.sources, plan.specs, keep_reasoning=plan.keep_reasoning)
        benchmarks, share = plan.selection.benchmarks, plan.validation
        # Every process reads the benchmarks itself: the index is made of hashes that only one process understands.
        self.benchmarks = BenchmarkIndex.read(map(Path, benchmarks)) if benchmarks else None
        self.splitter = None if share is None else Splitter({"train": 1 - share, "validation": share})

    def records(self, block: Block, counts: Counts) -> Iterator[tuple[Record, int, int]]:
        """Yield what one rollout by itself is not left out for, with its offset and length."""
        source = self.plan.sources[block.source]
        offset = block.offset
        for number, line in enumerate(block.content.splitlines(keepends=True), start=block.first_line):
            place, offset = offset, offset + len(line)
            if line.isspace():
                continue
            record = Record.parse(line, source.file, number, source.number)
            counts.read += 1
            counts.runs[source.name] += 1
            why = self.plan.selection.removed_by(record) or self._in_benchmark(record)
            if why is None:
                yield record, place, len(line)
            else:
                counts.removed[why] += 1

    def made(self, groups: Iterable[Sequence[Record]], counts: Counts) -> _Made:
        """The rows of some rollouts, or of some tasks' rollouts."""
        plan, context = self.plan, self.context
        parts: dict[str, list[bytes]] = {}
        for records in groups:
            lines = parts.setdefault("train" if self.splitter is None else self.splitter.split_of(records[0].asked), [])
            for made in plan.kind.rows(records, context):
                row = shape(made, plan.kind, plan.destination, context)
                if row is not None:
                    lines.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                    _count(made, counts)
        counts.splits.update({split: len(lines) for split, lines in parts.items()})
        counts.rows += sum(map(len, parts.values()))
        counts.removed.update(context.removed)
        context.removed.clear()
        return _Made({split: b"".join(lines) for split, lines in parts.items()}, counts)

    def _in_benchmark(self, record: Record) -> str | None:
        try:
            overlap = self.benchmarks.overlap(record.asked) if self.benchmarks else None
        except NoSuchField:  # it asks nothing, so there is nothing to share
            return None
        return None if overlap is None else f"shares text with {overlap.benchmark}"


def _export_block(state: _State, block: Block) -> _Made:
    counts = Counts()
    return state.made(([record] for record, _, _ in state.records(block, counts)), counts)


def _index_block(state: _State, block: Block) -> tuple[list[Entry], Counts]:
    counts, selection = Counts(), state.plan.selection
    entries = [
        Entry(
            block.source,
            record.number,
            offset,
            length,
            record.environment,
            hashed(f"{record.environment}\n{record.task_id}"),
            record.earned,
            record.size if selection.best_of or selection.top_share else 0,
            hashed(record.said) if selection.dedup == "exact" else None,
            signature(record.text) if selection.dedup == "near" else None,
        )
        for record, offset, length in state.records(block, counts)
    ]
    return entries, counts


def _export_groups(state: _State, groups: list[_Lines]) -> _Made:
    sources = state.plan.sources
    return state.made(
        (
            [Record.parse(line, sources[source].file, number, source) for source, number, line in group.lines]
            for group in groups
        ),
        Counts(),
    )


def _batches(groups: Iterator[_Lines]) -> Iterator[list[_Lines]]:
    """Yield groups together until they are as large as a block."""
    batch: list[_Lines] = []
    size = 0
    for group in groups:
        batch.append(group)
        size += sum(len(line) for _, _, line in group.lines)
        if size >= BLOCK_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _count(row: Row, counts: Counts) -> None:
    lineage = row["lineage"]
    sides = {"chosen": lineage["chosen"], "rejected": lineage["rejected"]} if "chosen" in lineage else {"rows": lineage}
    for side, origin in sides.items():
        if "reward" in origin:
            rewards = counts.rewards.get(side)
            if rewards is None:
                rewards = counts.rewards[side] = Counter()
            rewards[round(origin["reward"], _ROUNDED)] += 1
    first = next(iter(sides.values()))
    counts.environments[first["environment"], first["version"]] += 1
    if "label" in row:
        counts.labels[row["label"]] += 1


class _Store:
    """Gives a source's lines again by their place; a compressed source is unpacked for that."""

    def __init__(self, source: Source, unpacked: Path) -> None:
        self._source = source
        self._unpacked = unpacked if source.is_compressed else None
        self._file: IO[bytes] | None = None

    def blocks(self) -> Iterator[Block]:
        """Yield the source's blocks."""
        if self._unpacked is None:
            yield from blocks_of(self._source)
            return
        with self._unpacked.open("wb") as file:
            for block in blocks_of(self._source):
                file.seek(block.offset)
                file.write(block.content)
                yield block

    def line(self, place: Place) -> tuple[int, int, bytes]:
        """Read one line again."""
        if self._file is None:
            self._file = (self._unpacked or self._source.file).open("rb", buffering=1 << 16)
        self._file.seek(place.offset)
        return place.source, place.number, self._file.read(place.length)

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
