"""Files of tasks held against an environment: every bad row, what stands twice, what two files share."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gymrail.data.bad_rows import MAX_ERRORS
from gymrail.data.contamination import BenchmarkIndex
from gymrail.data.content import NoSuchField, content_hash
from gymrail.data.hash_table import HashTable
from gymrail.data.prompts import Prompt, PromptError
from gymrail.data.rows import Problem, RawRow, RowCheck, read_raw
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec


@dataclass(slots=True)
class Validation:
    """What was found; `show` of each kind are listed, all are counted."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows of each file."""
    bad_rows: int = 0
    duplicates: int = 0
    overlaps: int = 0
    contaminated: int = 0
    problems: list[Problem] = field(default_factory=list)
    repeated: list[Problem] = field(default_factory=list)
    shared: list[Problem] = field(default_factory=list)
    benchmarked: list[Problem] = field(default_factory=list)
    overlapping_files: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def passed(self) -> bool:
        return not (self.bad_rows or self.duplicates or self.overlaps or self.contaminated)

    def to_json(self) -> dict[str, Any]:
        kinds = ("problems", "repeated", "shared", "benchmarked")
        return {
            "passed": self.passed,
            "rows": self.rows,
            "bad_rows": self.bad_rows,
            "duplicates": self.duplicates,
            "overlaps": self.overlaps,
            "contaminated": self.contaminated,
            "overlapping_files": [
                {"files": list(pair), "rows": count} for pair, count in self.overlapping_files.items()
            ],
            **{kind: [problem.to_json() for problem in getattr(self, kind)] for kind in kinds},
        }


def validate(
    files: Sequence[Path],
    spec: EnvironmentSpec,
    *,
    prompt: Prompt | None = None,
    benchmarks: BenchmarkIndex | None = None,
    max_errors: int = MAX_ERRORS,
) -> Validation:
    """Read files of tasks; memory is some 25 bytes a row, for finding what stands twice.

    Two rows are the same that ask the same and have the same answer, whatever the capitals and the blanks.

    Raises:
        InputError: a file cannot be read, is empty, or the prompt names a field that there is not.
    """
    reading = _Reading(spec, prompt, benchmarks, max_errors)
    for file in dict.fromkeys(files):
        reading.read(file)
    return reading.found


class _Reading:
    def __init__(
        self, spec: EnvironmentSpec, prompt: Prompt | None, benchmarks: BenchmarkIndex | None, show: int
    ) -> None:
        self.found = Validation()
        self._task_type = spec.cls.task_type
        self._prompt, self._benchmarks, self._show = prompt, benchmarks, show
        self._check = RowCheck(spec)
        self._seen = HashTable()
        self._lines = array("I")
        self._files: list[str] = []
        self._starts: list[int] = []

    def read(self, file: Path) -> None:
        found, name = self.found, str(file)
        self._files.append(name)
        self._starts.append(len(self._lines))
        found.rows[name] = 0
        for row in read_raw(file):
            found.rows[name] += 1
            if isinstance(row, Problem):
                self._bad([row])
                continue
            if found.rows[name] == 1 and self._prompt is not None:
                self._prompt.check(self._task_type, row.values)
            self._row(row)
        if not found.rows[name]:
            raise InputError(f"'{file}' has no rows.")

    def _row(self, row: RawRow) -> None:
        values = row.values
        if self._prompt is not None:
            try:
                values = self._prompt.apply(values)
            except PromptError as error:
                self._bad([row.problem(error.message, error.field, error.value)])
                return
        problems = self._check.problems(row, values)
        if problems:
            self._bad(problems)
            return
        self._compare(row, content_hash(values))
        if self._benchmarks is not None:
            self._hold_against(row, self._benchmarks)

    def _bad(self, problems: Sequence[Problem]) -> None:
        self.found.bad_rows += 1
        self.found.problems += problems[: max(0, self._show - len(self.found.problems))]

    def _compare(self, row: RawRow, key: int) -> None:
        number = self._seen.add(key)
        if number == len(self._lines):
            self._lines.append(row.line)
            return
        found = self.found
        file = self._files[bisect_right(self._starts, number) - 1]
        message = f"asks the same as {file}, line {self._lines[number]}, with the same answer"
        if file == row.file:
            found.duplicates += 1
            kind = found.repeated
        else:
            found.overlaps += 1
            found.overlapping_files[file, row.file] += 1
            kind = found.shared
        if len(kind) < self._show:
            kind.append(row.problem(message))

    def _hold_against(self, row: RawRow, benchmarks: BenchmarkIndex) -> None:
        try:
            overlap = benchmarks.overlap(row.values)
        except NoSuchField as error:
            self._bad([row.problem(str(error))])
            return
        if overlap is None:
            return
        self.found.contaminated += 1
        if len(self.found.benchmarked) < self._show:
            where = f"{overlap.benchmark}, line {overlap.line}"
            message = f"shares {overlap.shared} of {overlap.of} n-grams with {where}: {overlap.text!r}"
            self.found.benchmarked.append(row.problem(message))
