"""Task files from environments' datasets and other files: merged, prompted, repeated, validated, measured.

    prepare([Source(mcqa, "train"), Source(math, "train", path=Path("raw.jsonl"), prompt=prompt)], Path("prepared"))

    prepared/train.jsonl            rows with `agent_ref`, source after source, each row `repeats` times in a row
             train_metrics.json     tools, turns, words, temperature and every field, under NeMo Gym's names
             prepare.json           where each row came from, what was left out, hashes
             bad_rows.jsonl         what `skip_bad` left out, and why

A line that nothing is changed in is copied as it stands. All streams: memory does not grow with the rows.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from gymrail.data.bad_rows import BAD_ROWS, MAX_ERRORS, BadRows
from gymrail.data.folder import output_directory
from gymrail.data.overlaps import SplitOverlaps
from gymrail.data.prompts import Prompt, PromptError
from gymrail.data.rows import Problem, RawRow, RowCheck, dump_row, read_raw
from gymrail.data.shown_answers import ShownAnswers
from gymrail.data.sources import prompt_of, read_rows_of
from gymrail.data.statistics import RowStatistics
from gymrail.errors import InputError, did_you_mean
from gymrail.spec import DatasetEntry, EnvironmentSpec

logger = logging.getLogger(__name__)

REPORT = "prepare.json"


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of one environment for one split."""

    spec: EnvironmentSpec
    split: str
    path: Path | None = None
    """A JSONL file; without it, what the environment's manifest lists or generates for the split."""
    prompt: Prompt | None = None
    repeats: int = 1
    limit: int | None = None
    """Use the first so many rows only."""
    seed: int = 0
    """Of generated tasks."""

    @property
    def entry(self) -> DatasetEntry | None:
        """What the manifest says about the split, where the rows come from there."""
        if self.path is not None:
            return None
        return next((entry for entry in self.spec.manifest.datasets if entry.split == self.split), None)

    @property
    def is_generated(self) -> bool:
        return self.path is None and ((entry := self.entry) is None or entry.source == "generator")

    @property
    def place(self) -> str:
        """The file, or the name of the dataset."""
        if self.path is not None:
            return str(self.path)
        entry = self.entry
        return f"{self.spec.name}:{entry.path if entry and entry.path else self.split}"


@dataclass(slots=True)
class Prepared:
    """What became of the sources."""

    sources: list[dict[str, Any]] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    bad_rows: int = 0
    overlaps: list[dict[str, Any]] = field(default_factory=list)
    """How many rows of one split another has too."""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "splits": self.splits,
            "sources": self.sources,
            "bad_rows": self.bad_rows,
            "overlaps": self.overlaps,
            "warnings": self.warnings,
        }


def prepare(
    sources: Sequence[Source],
    output: Path,
    *,
    agent_name: str = "{environment}",
    with_tools: bool = False,
    skip_bad: bool = False,
    max_errors: int = MAX_ERRORS,
    overwrite: bool = False,
) -> Prepared:
    """Write the task files of all splits into a new directory, complete or not at all.

    Args:
        agent_name: what `agent_ref.name` says; `{environment}` is the environment's name.
        with_tools: write the environment's tool schemas into rows that bring none of their own.
        skip_bad: leave bad rows out, and write them to `bad_rows.jsonl`.
        max_errors: how many problems an error lists.

    Raises:
        InputError: a row is bad and `skip_bad` is not set, a source has no rows, or the directory exists.
    """
    if not sources:
        raise InputError("There is nothing to prepare; name an environment, or ENVIRONMENT=FILE.jsonl.")
    for source in sources:
        _check_source(source)
    with output_directory(output, marker=REPORT, overwrite=overwrite) as folder:
        bad = BadRows(show=max_errors, skipped_to=folder / BAD_ROWS if skip_bad else None)
        made = Prepared()
        total = 0
        splits = list(dict.fromkeys(source.split for source in sources))
        overlaps = SplitOverlaps(splits)
        try:
            for split in splits:
                chosen = [source for source in sources if source.split == split]
                total += _write_split(chosen, split, folder, made, bad, overlaps, agent_name, with_tools)
        finally:
            bad.close()
        if not skip_bad:
            bad.refuse(total)
        _refuse_empty(made)
        made.bad_rows = bad.rows
        made.overlaps = overlaps.to_json()
        made.warnings += overlaps.warnings()
        (folder / REPORT).write_bytes(_pretty(made.to_json()))
    return made


def _check_source(source: Source) -> None:
    entry = source.entry
    if source.path is not None:
        if not source.path.is_file():
            raise InputError(f"There is no file '{source.path}' with rows for {source.spec.name}.")
        return
    if entry is None and not source.spec.is_generated:
        splits = [entry.split for entry in source.spec.manifest.datasets]
        raise InputError(f"{source.spec.name} has no split {source.split!r}. {did_you_mean(source.split, splits)}")
    if source.is_generated and source.limit is None and (entry is None or entry.size is None):
        raise InputError(
            f"{source.spec.name} generates as many {source.split} tasks as asked for; say how many: --limit N."
        )
    if source.is_generated and source.prompt is not None:
        raise InputError(f"{source.spec.name} generates tasks that have their prompts; a prompt config is for files.")


def _write_split(
    sources: Sequence[Source],
    split: str,
    folder: Path,
    made: Prepared,
    bad: BadRows,
    overlaps: SplitOverlaps,
    agent_name: str,
    with_tools: bool,
) -> int:
    """Write one split's file and metrics; return how many rows were read."""
    statistics, digest, total = RowStatistics(), hashlib.sha256(), 0
    path = folder / f"{split}.jsonl"
    with path.open("wb", buffering=1 << 20) as file:
        for source in sources:
            writer = _SourceWriter(source, agent_name.replace("{environment}", source.spec.name), with_tools)
            writer.run(file, digest, statistics, bad, overlaps)
            total += writer.read
            made.sources.append(writer.report())
            made.warnings += writer.warnings
    licenses = sorted({entry.license for source in sources if (entry := source.entry) and entry.license})
    about = {
        "name": split,
        "type": split,
        "jsonl_fpath": path.name,
        "num_repeats": 1,
        "license": ", ".join(licenses) or None,
    }
    (folder / f"{split}_metrics.json").write_bytes(_pretty(about | statistics.to_json()))
    made.splits[split] = {"file": path.name, "rows": statistics.rows, "sha256": digest.hexdigest()}
    return total


class _SourceWriter:
    """Takes one source's rows to the file of its split."""

    def __init__(self, source: Source, agent: str, with_tools: bool) -> None:
        self._source = source
        self._prompt = source.prompt or prompt_of(source.entry, source.spec)
        self._reference = dump_row({"type": "responses_api_agents", "name": agent})
        self._with_tools = with_tools
        self._check = RowCheck(source.spec)
        self._agents: Counter[str] = Counter()
        self._shown = ShownAnswers(self._prompt, source.spec.name) if self._prompt else None
        self.read = self.written = self.bad = 0

    @property
    def warnings(self) -> list[str]:
        return self._shown.warnings() if self._shown else []

    def run(
        self, file: IO[bytes], digest: Any, statistics: RowStatistics, bad: BadRows, overlaps: SplitOverlaps
    ) -> None:
        source, repeats = self._source, self._source.repeats
        for found in itertools.islice(_rows(source), source.limit):
            self.read += 1
            if isinstance(found, Problem):
                self._note(bad, [found], None)
                continue
            if self.read == 1 and self._prompt is not None:
                self._prompt.check(source.spec.cls.task_type, found.values)
            made = self._make(found)
            if isinstance(made, list):
                self._note(bad, made, found)
                continue
            values, line = made
            statistics.add(values, repeats)
            overlaps.add(source.split, values, is_generated=source.is_generated)
            lines = line * repeats
            file.write(lines)
            digest.update(lines)
            self.written += repeats

    def _note(self, bad: BadRows, problems: list[Problem], row: RawRow | None) -> None:
        self.bad += 1
        bad.add(problems, row)

    def _make(self, row: RawRow) -> tuple[dict[str, Any], bytes] | list[Problem]:
        values, prompt = row.values, self._prompt
        if prompt is not None:
            try:
                values = prompt.apply(values)
            except PromptError as error:
                return [row.problem(error.message, error.field, error.value)]
        problems = self._check.problems(row, values) or self._agent_problems(row)
        if problems:
            return problems
        if self._shown:
            self._shown.look(row.values, values)
        if self._with_tools and "tools" not in values["responses_create_params"]:
            tools = [tool.schema for tool in self._source.spec.tools.values()]
            values = {**values, "responses_create_params": {**values["responses_create_params"], "tools": tools}}
        try:
            return values, self._line(row, values)
        except TypeError as error:
            return [row.problem(f"cannot be written as JSON: {error}")]

    def _agent_problems(self, row: RawRow) -> list[Problem]:
        """Rows of several agents in one source are several environments' rows."""
        reference = row.values.get("agent_ref")
        if reference is None:
            return []
        name = reference.get("name") if isinstance(reference, dict) else None
        if not isinstance(name, str):
            return [row.problem("has no name", "agent_ref", reference)]
        if self._agents and name not in self._agents:
            first = next(iter(self._agents))
            return [
                row.problem(
                    f"names the agent {name!r}, the rows before it {first!r}; a source holds one environment's rows",
                    "agent_ref.name", name,
                )
            ]  # fmt: skip
        self._agents[name] += 1
        return []

    def _line(self, row: RawRow, values: dict[str, Any]) -> bytes:
        if row.text is None or "agent_ref" in values:
            return dump_row({**values, "agent_ref": orjson.loads(self._reference)}) + b"\n"
        added = b',"agent_ref":' + self._reference + b"}\n"
        if values is row.values:
            return row.text[:-1].rstrip() + added
        if "responses_create_params" not in row.values and row.values:
            parameters = dump_row(values["responses_create_params"])
            return row.text[:-1].rstrip() + b',"responses_create_params":' + parameters + added
        return dump_row(values)[:-1] + added

    def report(self) -> dict[str, Any]:
        source, entry = self._source, self._source.entry
        if self.read and not self.written and not self.bad:
            raise AssertionError("rows were lost")
        report: dict[str, Any] = {
            "environment": source.spec.name,
            "environment_version": source.spec.version,
            "split": source.split,
            "source": source.place,
            "rows_read": self.read,
            "rows_written": self.written,
            "rows_bad": self.bad,
            "repeats": source.repeats,
            "license": entry.license if entry else None,
            "agents_replaced": dict(self._agents),
        }
        prompt = self._prompt
        if prompt is not None:
            report["prompt"] = {
                "file": Path(prompt.name).name,
                "shows": prompt.fields,
                "does_not_show": prompt.unused(source.spec.cls.task_type),
                "config": prompt.config.model_dump(exclude_none=True, exclude_defaults=True),
            }
        return report


def _rows(source: Source) -> Iterator[RawRow | Problem]:
    if source.path is not None:
        return read_raw(source.path)
    entry = source.entry
    if entry is None or source.is_generated:
        tasks = source.spec.tasks(source.split, limit=source.limit, seed=source.seed)
        return (RawRow(source.place, number, None, task.row) for number, task in enumerate(tasks, start=1))
    return read_rows_of(entry, source.spec, prompted=False)


def _refuse_empty(made: Prepared) -> None:
    for source in made.sources:
        if source["rows_written"] == 0:
            why = f"all of its {source['rows_read']} rows are bad" if source["rows_read"] else "it is empty"
            raise InputError(f"{source['source']} gives no row for {source['split']}: {why}. Nothing was written.")


def _pretty(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
