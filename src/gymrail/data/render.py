"""Prompt config and raw rows in, task rows out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gymrail.data.bad_rows import MAX_ERRORS, BadRows
from gymrail.data.jsonl import write_lines
from gymrail.data.prompts import Prompt, PromptError
from gymrail.data.rows import Problem, RowCheck, dump_row, read_raw
from gymrail.data.shown_answers import ShownAnswers
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task


@dataclass(slots=True)
class Rendered:
    """What was written."""

    rows: int = 0
    bad_rows: int = 0
    shows: list[str] = field(default_factory=list)
    does_not_show: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def render(
    files: Sequence[Path],
    prompt: Prompt,
    output: Path,
    *,
    spec: EnvironmentSpec | None = None,
    skip_bad: bool = False,
    max_errors: int = MAX_ERRORS,
    overwrite: bool = False,
) -> Rendered:
    """Write each row with the prompt that its fields make; the file appears complete or not at all.

    Args:
        spec: hold the rows against this environment's task type too.
        skip_bad: leave bad rows out, and write them to `<output's name>.bad.jsonl`.

    Raises:
        InputError: a row is bad and `skip_bad` is not set, there is no row, or the file exists.
    """
    if output.exists() and not overwrite:
        raise InputError(f"'{output}' exists already; name another file, or replace it with --overwrite.")
    skipped = output.with_name(f"{output.name.removesuffix('.jsonl')}.bad.jsonl") if skip_bad else None
    bad = BadRows(show=max_errors, skipped_to=skipped)
    made = Rendered(shows=prompt.fields)
    first: list[Mapping[str, Any]] = []
    shown = ShownAnswers(prompt, spec.name if spec else "the environment")
    try:
        made.rows = write_lines(_lines(files, prompt, spec, bad, shown, first, refuse=not skip_bad), output)
    finally:
        bad.close()
    known = spec.cls.task_type.model_fields if spec else first[0]
    made.does_not_show = [name for name in known if name not in {*prompt.fields, "responses_create_params"}]
    made.bad_rows, made.warnings = bad.rows, shown.warnings()
    return made


def _lines(
    files: Sequence[Path],
    prompt: Prompt,
    spec: EnvironmentSpec | None,
    bad: BadRows,
    shown: ShownAnswers,
    first: list[Mapping[str, Any]],
    *,
    refuse: bool,
) -> Iterator[bytes]:
    check = RowCheck(spec) if spec else None
    read = written = 0
    for file in files:
        for found in read_raw(file):
            read += 1
            if isinstance(found, Problem):
                bad.add([found])
                continue
            if not first:
                first.append(found.values)
                prompt.check(spec.cls.task_type if spec else Task, found.values)
            try:
                values = prompt.apply(found.values)
            except PromptError as error:
                bad.add([found.problem(error.message, error.field, error.value)], found)
                continue
            if check is not None and (problems := check.problems(found, values)):
                bad.add(problems, found)
                continue
            shown.look(found.values, values)
            written += 1
            yield dump_row(values) + b"\n"
    if refuse:
        bad.refuse(read)
    if not written:
        why = f"all {read} rows are bad" if read else "there are none in the files"
        raise InputError(f"No row to write: {why}. Nothing was written.")
