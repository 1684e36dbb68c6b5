"""Tasks from Hugging Face datasets: from the hub, or from a folder that holds one.

A JSONL file inside a dataset is read as it is. Everything else goes through Arrow, which writes keys that a row lacks
as null; those are taken out again where they would change the task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gymrail.data.jsonl import read_tasks
from gymrail.data.rows import Problem, RawRow, read_raw
from gymrail.errors import InputError, did_you_mean
from gymrail.spec import DatasetEntry
from gymrail.task import Task

TaskT = TypeVar("TaskT", bound=Task)


def read_hub(entry: DatasetEntry, task_type: type[TaskT], folder: Path | None = None) -> Iterator[TaskT]:
    """Yield the tasks of a Hugging Face dataset.

    Args:
        entry: `path` is the dataset's id or a folder, `file` a file inside it; without one, the entry's split is read.
        folder: what a relative path is relative to.

    Raises:
        InputError: the dataset, the file or the split is not there, or a row is bad.
        ImportError: `datasets` is not installed.
    """
    local = _local(entry, folder)
    if entry.file and entry.file.endswith((".jsonl", ".jsonl.gz")):
        yield from read_tasks(_jsonl(entry, local), task_type)
        return
    optional = {name for name, field in task_type.model_fields.items() if not field.is_required()}
    for index, row in enumerate(_load(entry, local)):
        yield task_type.from_row(_without_padding(row, optional), f"dataset {entry.path}, row {index}")


def hub_rows(entry: DatasetEntry, task_type: type[Task], folder: Path | None = None) -> Iterator[RawRow | Problem]:
    """Yield the rows of a Hugging Face dataset as `read_hub` takes them, not yet validated.

    Raises:
        InputError: the dataset, the file or the split is not there.
        ImportError: `datasets` is not installed.
    """
    local = _local(entry, folder)
    if entry.file and entry.file.endswith((".jsonl", ".jsonl.gz")):
        yield from read_raw(_jsonl(entry, local))
        return
    optional = {name for name, field in task_type.model_fields.items() if not field.is_required()}
    for number, row in enumerate(_load(entry, local), start=1):
        yield RawRow(f"dataset {entry.path}", number, None, _without_padding(row, optional))


def hub_files(entry: DatasetEntry, folder: Path | None = None) -> list[Path] | None:
    """Return the files that a dataset is read from; None for a table on the hub, which has none here.

    Raises:
        InputError: the file is not there.
    """
    local = _local(entry, folder)
    if entry.file and entry.file.endswith((".jsonl", ".jsonl.gz")):
        return [_jsonl(entry, local)]
    return sorted(file for file in local.rglob("*") if file.is_file()) if local.is_dir() else None


def _local(entry: DatasetEntry, folder: Path | None) -> Path:
    if not entry.path:
        raise InputError(
            f"Dataset {entry.name!r} has no path; write the hub's dataset id, such as 'org/name', or a folder."
        )
    return (folder or Path()) / entry.path


def _jsonl(entry: DatasetEntry, local: Path) -> Path:
    assert entry.path is not None
    assert entry.file is not None
    return local / entry.file if local.is_dir() else _download(entry.path, entry.file)


def _load(entry: DatasetEntry, local: Path) -> Any:
    datasets = _datasets()
    path = str(local) if local.is_dir() else entry.path
    try:
        if (local / "state.json").is_file():
            return datasets.load_from_disk(path)
        if (local / "dataset_dict.json").is_file():
            return _pick(datasets.load_from_disk(path), entry)
        if entry.file:
            return datasets.load_dataset(path, data_files=entry.file, split="train")
        return _pick(datasets.load_dataset(path), entry)
    except (OSError, ValueError) as error:
        inside = f" with file {entry.file!r}" if entry.file else ""
        raise InputError(f"Dataset {entry.name!r} ({entry.path}){inside} cannot be read: {error}") from None


def _pick(splits: Mapping[str, Any], entry: DatasetEntry) -> Any:
    if entry.split not in splits:
        raise InputError(f"Dataset {entry.path} has no split {entry.split!r}. {did_you_mean(entry.split, splits)}")
    return splits[entry.split]


def _download(repository: str, file: str) -> Path:
    _datasets()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset"))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise InputError(f"Dataset {repository} with file {file!r} cannot be read: {error}") from None


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError("Hugging Face datasets need the package `datasets`: pip install 'gymrail[data]'") from error
    return datasets


def _without_padding(row: Mapping[str, Any], optional: set[str]) -> dict[str, Any]:
    """Take out the nulls that Arrow put in: everywhere in the Responses parameters, and where a field has a default."""
    kept = {name: value for name, value in row.items() if value is not None or name not in optional}
    if "responses_create_params" in kept:
        kept["responses_create_params"] = _compact(kept["responses_create_params"])
    return kept


def _compact(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _compact(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_compact(item) for item in value]
    return value
