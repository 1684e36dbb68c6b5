"""Write an export: a directory with its card, or one file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from gymrail.data.export import arrow
from gymrail.data.export.card import card_of, summary_of, why_empty
from gymrail.data.export.compiler import Counts, Plan, compile_rows
from gymrail.data.export.context import Kind
from gymrail.data.export.destinations import format_for
from gymrail.data.export.selection import Selection, refuse
from gymrail.data.export.sources import Source, count_lines, open_sources
from gymrail.data.jsonl import reason_of
from gymrail.errors import InputError, did_you_mean
from gymrail.spec import EnvironmentSpec

SUMMARY = "export.json"
"""What an export's directory is known by."""
_FILES = {".jsonl": "jsonl", ".parquet": "parquet"}
_GROUPED = ("best_of", "top_share", "max_per_task", "balance")


def export(
    runs: Iterable[str | Path],
    output: str | Path,
    kind: Kind,
    *,
    selection: Selection | None = None,
    destination: str = "trl",
    format: str | None = None,
    keep_reasoning: bool = True,
    specs: Mapping[str, EnvironmentSpec] | None = None,
    overwrite: bool = False,
    processes: int = 1,
    validation: float | None = None,
) -> dict[str, Any]:
    """Write training rows made of rollouts, and return the summary that stands in the export.

    Args:
        runs: run directories and JSONL files of rollouts.
        output: a directory, which appears complete or not at all; or a `.jsonl` or `.parquet` file for the rows alone.
        kind: `Sft()`, `Dpo()`, `Kto()`, `Prm()` or `Rft()` with its settings.
        selection: which rollouts are taken; all that were judged by default.
        destination: which program reads the rows: trl, unsloth, sharegpt, nemo-rl or verl.
        format: jsonl, parquet or dataset (a saved `datasets.DatasetDict`); the destination's first by default.
        keep_reasoning: keep the model's reasoning.
        specs: environments by name, for the tools of tasks that do not list their own; found by name where absent.
        overwrite: replace an export, or a file of rows, that is there.
        processes: how many work at once.
        validation: the share of tasks whose rows become the split `validation`. Which ones is told by what a task asks,
            as `gymrail data split` tells it: no task is in both, and later rollouts of it go where it is.

    Raises:
        InputError: a run, a line or a setting is wrong, the output is there already, or no row came out; the text says
            which filter removed how many.
        TokenError: token rows are asked for and a rollout carries no token ids.
    """
    target, selection = Path(output), selection or Selection()
    chosen = format_for(destination, kind, _format_of(target, format))
    check_selection(kind, selection)
    _check_share(validation, target)
    sources = open_sources(map(Path, runs))
    _check_environments(selection.environments, sources)
    plan = Plan(sources, kind, selection, destination, keep_reasoning, specs, processes, validation)
    _refuse_existing(target, overwrite)
    if any(target.resolve() == source.file.resolve() for source in sources):
        raise InputError(f"'{target}' is read and cannot be written; name another file.")
    scratch = _scratch_beside(target)
    try:
        rows, counts = _write_rows(plan, scratch)
        failed = sum(count_lines(source.failures) for source in plan.sources)
        if not counts.rows:
            raise InputError(why_empty(plan, counts, failed))
        _refuse_empty_split(plan, counts)
        summary = summary_of(plan, counts, failed, metadata.version("gymrail"))
        data_files = _convert(rows, chosen, destination)
        if target.suffix in _FILES:
            os.replace(scratch / data_files["train"], target)
            return {**summary, "output": str(target), "format": chosen}
        summary |= {"format": chosen}
        (scratch / "README.md").write_text(card_of(summary, data_files), encoding="utf-8")
        (scratch / SUMMARY).write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        if target.exists():
            shutil.rmtree(target)
        os.replace(scratch, target)
        return {**summary, "output": str(target)}
    except (OSError, sqlite3.OperationalError) as error:
        raise InputError(f"Cannot write '{target}': {reason_of(error)}.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_selection(kind: Kind, selection: Selection) -> None:
    """Check that a kind of export can have the filters.

    Raises:
        InputError: it cannot; the text says why.
    """
    if kind.by_task:
        refuse(selection, _GROUPED, f"{kind.name} is made of all of a task's rollouts, the good and the bad")
    if kind.name == "rft":
        refuse(selection, ("min_reward", "max_reward", "dedup"), "it would change the pass rates")


def _write_rows(plan: Plan, folder: Path) -> tuple[dict[str, Path], Counts]:
    """Write each split's rows as JSONL; return the files, and what was counted."""
    counts = Counts()
    files = {split: folder / f"{split}.jsonl" for split in plan.splits}
    with ExitStack() as opened:
        streams = {split: opened.enter_context(file.open("wb")) for split, file in files.items()}
        for content, more in compile_rows(plan, folder):
            for split, lines in content.items():
                streams[split].write(lines)
            counts.add(more)
    return files, counts


def _check_environments(names: Iterable[str], sources: Sequence[Source]) -> None:
    """Check that the runs know the environments that are asked for; files and old runs do not say which they hold."""
    known = sorted({name for source in sources for name in source.versions})
    for name in names if all(source.versions for source in sources) else ():
        if name not in known:
            raise InputError(f"No run holds the environment {name!r}. {did_you_mean(name, known)}")


def _check_share(validation: float | None, target: Path) -> None:
    if validation is None:
        return
    if not 0 < validation < 1:
        raise InputError(f"validation is {validation!r}; it must be above 0 and below 1.")
    if target.suffix in _FILES:
        raise InputError(f"'{target}' is one file, and a validation split is another; name a directory.")


def _refuse_empty_split(plan: Plan, counts: Counts) -> None:
    for split in plan.splits:
        if not counts.splits[split]:
            raise InputError(
                f"None of {counts.rows} rows falls to {split} with validation={plan.validation!r}, since the rows of a "
                "task stay together; export more tasks, or choose another share."
            )


def _format_of(target: Path, wanted: str | None) -> str | None:
    """The format that a file's name asks for."""
    named = _FILES.get(target.suffix)
    if named is not None and wanted not in (None, named):
        raise InputError(f"'{target}' is named as {named}, and the format is {wanted}; name a directory, or agree.")
    return named or wanted


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.suffix in _FILES:
        if target.is_dir():
            raise InputError(f"'{target}' is a directory; name a file, or a directory without that ending.")
        if target.exists() and not overwrite:
            raise InputError(f"'{target}' exists already; name another file, or replace it with --overwrite.")
        return
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"'{target}' is a file; name a directory, or a file that ends in .jsonl or .parquet.")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise InputError(f"'{target}' exists already; name another directory, or replace it with --overwrite.")
    if not (target / SUMMARY).is_file():
        raise InputError(
            f"'{target}' is not an export ({SUMMARY} is missing), so it is not overwritten; name another directory."
        )


def _scratch_beside(target: Path) -> Path:
    """A directory on the same disk, so that what is complete can be moved into its place."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        scratch.chmod(0o755)
    except OSError as error:
        raise InputError(f"Cannot write '{target}': {reason_of(error)}.") from None
    return scratch


def _convert(rows: Mapping[str, Path], format: str, destination: str) -> dict[str, str]:
    """Turn the splits' JSONL files into the format; return the names of the data files, none for a saved dataset."""
    if format == "jsonl":
        return {split: file.name for split, file in rows.items()}
    if format == "dataset":
        arrow.save_dataset(rows, rows["train"].parent)
    elif destination == "verl":
        arrow.save_plain_parquet(rows)
    else:
        arrow.save_parquet(rows)
    for file in rows.values():
        file.unlink()
    return {split: file.with_suffix(".parquet").name for split, file in rows.items()} if format == "parquet" else {}
