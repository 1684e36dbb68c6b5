"""Where a split's tasks come from: one function from a manifest's dataset entry to tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gymrail.data.hub import read_hub
from gymrail.data.jsonl import read_tasks
from gymrail.errors import InputError
from gymrail.spec import DatasetEntry, EnvironmentSpec
from gymrail.task import Task


def read_dataset(entry: DatasetEntry, spec: EnvironmentSpec) -> Iterator[Task]:
    """Yield a dataset's tasks, typed as the environment declares them; paths are relative to the environment's folder.

    Raises:
        InputError: the dataset cannot be read, or a row is bad (file, line, field and value).
    """
    folder = _folder(spec)
    if entry.source == "huggingface":
        return read_hub(entry, spec.cls.task_type, folder)
    if entry.source == "generator":
        return spec.tasks(entry.split)
    if not entry.path:
        raise InputError(
            f"{spec.name}: dataset {entry.name!r} has no path; write its JSONL file, relative to environment.yaml."
        )
    return read_tasks(folder / entry.path, spec.cls.task_type)


def _folder(spec: EnvironmentSpec) -> Path:
    if spec.path is None:
        return Path()
    return spec.path if spec.path.is_dir() else spec.path.parent
