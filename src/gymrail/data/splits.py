"""Splits without leaks: which split a row is in is a hash of what it is about, so no task is in two.

    split_files([Path("all.jsonl")], Path("split"), {"train": 0.9, "validation": 0.1}, by="document_id")

Rows that ask the same and have the same answer go together, and with `by` all rows with one value of a field. Where a
row stays does not depend on the other rows, so adding some moves none. Where two groups hold the same task on either
side, the one that is trained on is left out, and written to `left_out.jsonl` with the reason.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, get_args

import orjson

from gymrail.data.bad_rows import BAD_ROWS, MAX_ERRORS, BadRows
from gymrail.data.contamination import BenchmarkIndex, Overlap
from gymrail.data.content import NoSuchField, content_hash, lookup
from gymrail.data.folder import output_directory
from gymrail.data.hash_table import HashTable
from gymrail.data.rows import Problem, RawRow, dump_row, dump_sorted, read_raw
from gymrail.errors import InputError, did_you_mean
from gymrail.spec import Split

REPORT, LEFT_OUT, CONTAMINATED = "split.json", "left_out.jsonl", "contaminated.jsonl"
DEFAULT_SHARES = {"train": 0.9, "validation": 0.1}
_HELD_OUT_FIRST = ("benchmark", "test", "validation", "example", "train")
"""Which split keeps a task that two groups on either side hold."""


@dataclass(slots=True)
class SplitReport:
    """What became of the rows: read = the splits' rows + left out + contaminated and dropped + bad."""

    rows_read: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    """Rows whose task is in a split that is held out, though their group is not."""
    contaminated: int = 0
    contaminated_by: dict[str, int] = field(default_factory=dict)
    dropped: bool = False
    """Whether contaminated rows were dropped."""
    bad_rows: int = 0
    boilerplate_ngrams: int = 0
    overlaps: list[dict[str, Any]] = field(default_factory=list)
    """The first contaminated rows; all are in `contaminated.jsonl`."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Splitter:
    """Says which split a row is in."""

    def __init__(self, shares: Mapping[str, float], *, by: str | None = None, seed: int = 0) -> None:
        _check_shares(shares)
        self.names = list(shares)
        self.by = by
        self._seed = f"{seed}:".encode()
        bound = 0.0
        self._bounds: list[tuple[float, str]] = []
        for name, share in shares.items():
            bound += share
            self._bounds.append((bound, name))

    def split_of(self, values: Mapping[str, Any]) -> str:
        """Return a row's split.

        Raises:
            NoSuchField: the row lacks the field that groups it.
        """
        if self.by is None:
            key = content_hash(values).to_bytes(8)
        else:
            group = lookup(values, self.by)
            if group is None:
                hint = did_you_mean(self.by, [name for name in values if name != "responses_create_params"])
                raise NoSuchField(f"the row lacks it, and rows are grouped by it. {hint}", self.by)
            key = dump_sorted({"": group})
        digest = hashlib.blake2b(self._seed + key, digest_size=8).digest()
        place = int.from_bytes(digest) / 2**64
        return next((name for bound, name in self._bounds if place < bound), self.names[-1])


def split_files(
    files: Sequence[Path],
    output: Path,
    shares: Mapping[str, float] = DEFAULT_SHARES,
    *,
    by: str | None = None,
    seed: int = 0,
    benchmarks: BenchmarkIndex | None = None,
    drop_contaminated: bool = False,
    skip_bad: bool = False,
    max_errors: int = MAX_ERRORS,
    overwrite: bool = False,
) -> SplitReport:
    """Write `<split>.jsonl` for each split into a new directory, lines as they stand, complete or not at all.

    Args:
        by: a field whose values go to one split as a whole; dots reach into objects.
        benchmarks: rows of the first split that share text with these are reported.
        drop_contaminated: leave them out.

    Raises:
        InputError: a row is bad and `skip_bad` is not set, the shares do not add up to 1, a split gets no row, or the
            directory exists.
    """
    splitter = Splitter(shares, by=by, seed=seed)
    for file in files:
        if not file.is_file():
            raise InputError(f"There is no file '{file}'.")
    with output_directory(output, marker=REPORT, overwrite=overwrite) as folder:
        bad = BadRows(show=max_errors, skipped_to=folder / BAD_ROWS if skip_bad else None)
        owners = _owners(files, splitter)
        writing = _Writing(folder, splitter, owners, benchmarks, drop_contaminated, SplitReport())
        try:
            with writing.files:
                for file in files:
                    writing.add_file(file, bad)
        finally:
            bad.close()
        report = writing.report
        if not skip_bad:
            bad.refuse(report.rows_read)
        report.bad_rows = bad.rows
        _refuse_empty(report)
        about = {"files": [str(file) for file in files], "shares": dict(shares), "by": by, "seed": seed}
        (folder / REPORT).write_bytes(_pretty(about | report.to_json()))
    return report


def _owners(files: Sequence[Path], splitter: Splitter) -> Mapping[str, HashTable]:
    """Return the tasks of each split but the one that gives way to all others. Without groups no task is in two."""
    tables = {name: HashTable() for name in _by_right(splitter.names)[:-1]}
    if splitter.by is None:
        return {}
    for file in files:
        for found in read_raw(file):
            if isinstance(found, RawRow):
                try:
                    split = splitter.split_of(found.values)
                except NoSuchField:
                    continue  # it is reported in the pass that writes
                if split in tables:
                    tables[split].add(content_hash(found.values))
    return tables


class _Writing:
    """The pass that writes the splits."""

    def __init__(
        self,
        folder: Path,
        splitter: Splitter,
        owners: Mapping[str, HashTable],
        benchmarks: BenchmarkIndex | None,
        drop: bool,
        report: SplitReport,
    ) -> None:
        self.files = ExitStack()
        self.report = report
        self._folder, self._splitter, self._owners = folder, splitter, owners
        self._benchmarks, self._drop = benchmarks, drop
        self._open: dict[str, IO[bytes]] = {}
        self._by_right = _by_right(splitter.names)
        report.splits = dict.fromkeys(splitter.names, 0)
        report.dropped = drop
        report.boilerplate_ngrams = benchmarks.boilerplate if benchmarks else 0
        for name in splitter.names:
            self._file(f"{name}.jsonl")

    def add_file(self, path: Path, bad: BadRows) -> None:
        report = self.report
        for found in read_raw(path):
            report.rows_read += 1
            if isinstance(found, Problem):
                bad.add([found])
                continue
            try:
                self._add(found)
            except NoSuchField as error:
                bad.add([found.problem(str(error), error.field)], found)

    def _add(self, row: RawRow) -> None:
        split, report = self._splitter.split_of(row.values), self.report
        for other in self._by_right[: self._by_right.index(split)] if self._owners else ():
            if content_hash(row.values) in self._owners[other]:
                report.left_out += 1
                reason = f"its group is in {split}, and the same task of another group is in {other}"
                self._note(LEFT_OUT, row, {"reason": reason})
                return
        if self._benchmarks is not None and split == self._splitter.names[0]:
            overlap = self._benchmarks.overlap(row.values)
            if overlap is not None:
                self._count(row, overlap)
                if self._drop:
                    return
        assert row.text is not None
        self._file(f"{split}.jsonl").write(row.text + b"\n")
        report.splits[split] += 1

    def _count(self, row: RawRow, overlap: Overlap) -> None:
        report = self.report
        report.contaminated += 1
        report.contaminated_by[overlap.benchmark] = report.contaminated_by.get(overlap.benchmark, 0) + 1
        found = {"file": row.file, "line": row.line, **overlap.to_json()}
        if len(report.overlaps) < MAX_ERRORS:
            report.overlaps.append(found)
        self._note(CONTAMINATED, row, {"overlap": overlap.to_json()})

    def _note(self, name: str, row: RawRow, why: Mapping[str, Any]) -> None:
        written = dump_row({"file": row.file, "line": row.line, **why, "row": row.values})
        self._file(name).write(written + b"\n")

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._open:
            self._open[name] = self.files.enter_context((self._folder / name).open("wb", buffering=1 << 20))
        return self._open[name]


def _by_right(names: Sequence[str]) -> list[str]:
    return sorted(names, key=_HELD_OUT_FIRST.index)


def _check_shares(shares: Mapping[str, float]) -> None:
    allowed = get_args(Split)
    for name, share in shares.items():
        if name not in allowed:
            raise InputError(f"There is no split {name!r}. {did_you_mean(name, allowed)}")
        if not 0 < share <= 1:
            raise InputError(f"The share of {name} is {share!r}; it must be above 0 and at most 1.")
    total = math.fsum(shares.values())
    if abs(total - 1) > 1e-9:
        raise InputError(f"The shares add up to {total:g}; they must add up to 1: train=0.9,validation=0.1.")


def _refuse_empty(report: SplitReport) -> None:
    empty = [name for name, count in report.splits.items() if count == 0]
    if empty:
        gone = f", {report.left_out} left out, {report.contaminated if report.dropped else 0} dropped as contaminated"
        raise InputError(
            f"No row falls to {' and '.join(empty)}: {report.rows_read} rows read, {report.bad_rows} bad{gone}. "
            "Give more rows, larger shares, or another --by."
        )


def _pretty(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
