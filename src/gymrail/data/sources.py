"""Where a split's tasks come from: one function from a manifest's dataset entry to tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gymrail.data.hub import hub_files, hub_rows, read_hub
from gymrail.data.jsonl import read_tasks
from gymrail.data.prompts import Prompt, PromptError
from gymrail.data.rows import Problem, RawRow, read_raw
from gymrail.errors import InputError
from gymrail.spec import DatasetEntry, EnvironmentSpec
from gymrail.task import Task


def read_dataset(entry: DatasetEntry, spec: EnvironmentSpec) -> Iterator[Task]:
    """Yield a dataset's tasks, typed as the environment declares them; paths are relative to the environment's folder.

    Raises:
        InputError: the dataset cannot be read, or a row is bad (file, line, field and value).
    """
    folder = _folder(spec)
    if entry.prompt is not None:
        return _prompted(entry, spec)
    if entry.source == "huggingface":
        return read_hub(entry, spec.cls.task_type, folder)
    if entry.source == "generator":
        return spec.tasks(entry.split)
    return read_tasks(_file_of(entry, spec), spec.cls.task_type)


def read_rows_of(entry: DatasetEntry, spec: EnvironmentSpec, *, prompted: bool = True) -> Iterator[RawRow | Problem]:
    """Yield a dataset's rows, with its prompt if it has one, bad rows among them; not for what is generated.

    Raises:
        InputError: the dataset as a whole cannot be read, or its prompt names a field that there is not.
    """
    task_type = spec.cls.task_type
    is_hub = entry.source == "huggingface"
    rows = hub_rows(entry, task_type, _folder(spec)) if is_hub else read_raw(_file_of(entry, spec))
    prompt = prompt_of(entry, spec) if prompted else None
    for index, found in enumerate(rows):
        if prompt is None or isinstance(found, Problem):
            yield found
            continue
        if index == 0:
            prompt.check(task_type, found.values)
        try:
            # The line as it stands in the file is not the row any more.
            yield found._replace(text=None, values=prompt.apply(found.values))
        except PromptError as error:
            yield found.problem(error.message, error.field, error.value)


def dataset_files(entry: DatasetEntry, spec: EnvironmentSpec) -> list[Path] | None:
    """Return the files that a dataset's rows are in; None where there are none: a generator, a table on the hub.

    Raises:
        InputError: the entry names no file, or one that is not there.
    """
    if entry.source == "generator":
        return None
    return hub_files(entry, _folder(spec)) if entry.source == "huggingface" else [_file_of(entry, spec)]


def prompt_file(entry: DatasetEntry, spec: EnvironmentSpec) -> Path | None:
    """Return the prompt config that a dataset names."""
    return None if entry.prompt is None else _folder(spec) / entry.prompt


def prompt_of(entry: DatasetEntry | None, spec: EnvironmentSpec) -> Prompt | None:
    """Return the prompt config that a dataset's rows are shown with.

    Raises:
        InputError: it cannot be read.
    """
    return None if entry is None or entry.prompt is None else Prompt.read(_folder(spec) / entry.prompt)


def _prompted(entry: DatasetEntry, spec: EnvironmentSpec) -> Iterator[Task]:
    for found in read_rows_of(entry, spec):
        if isinstance(found, Problem):
            raise InputError(f"{found}.")
        yield spec.cls.task_type.from_row(found.values, f"{found.file}, line {found.line}")


def _file_of(entry: DatasetEntry, spec: EnvironmentSpec) -> Path:
    if not entry.path:
        raise InputError(
            f"{spec.name}: dataset {entry.name!r} has no path; write its JSONL file, relative to environment.yaml."
        )
    return _folder(spec) / entry.path


def _folder(spec: EnvironmentSpec) -> Path:
    if spec.path is None:
        return Path()
    return spec.path if spec.path.is_dir() else spec.path.parent
