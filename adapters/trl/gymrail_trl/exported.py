"""Rows of an export, or of a file of rows, as a recipe names them: JSONL, Parquet or a saved dataset."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gymrail.data.export.made import is_export, open_export, worth_of
from gymrail.data.jsonl import read_rows
from gymrail.errors import InputError

Row = dict[str, Any]
_READ = ("trl", "unsloth")
_MESSAGES = ("messages", "prompt", "completion", "chosen", "rejected")


def exported_rows(path: Path, algorithm: str, *, min_reward: float | None, margin: float) -> Iterator[Row]:
    """Yield the training rows of an export's directory or of a JSONL or Parquet file.

    Args:
        min_reward: leave out SFT rows of rollouts below it.
        margin: leave out pairs whose rewards differ by less.

    Raises:
        InputError: the export is of another kind or for another program, or rows must be left out by a reward that they
            do not tell.
    """
    least = min_reward if algorithm == "sft" else margin or None
    for row in _rows(path, algorithm):
        if least is None or worth_of(row, str(path)) >= least:
            yield row


def _rows(path: Path, algorithm: str) -> Iterable[Row]:
    if is_export(path):
        summary = open_export(path, algorithm, _READ)
        if summary["format"] == "dataset":
            return _of_datasets(path)
        path = path / f"train.{summary['format']}"
    if not path.is_file():
        raise InputError(f"data: '{path}' is neither a run directory, an export nor a file of rows.")
    return _of_datasets(path) if path.suffix == ".parquet" else (row for _, row in read_rows(path))


def _of_datasets(path: Path) -> Iterator[Row]:
    from datasets import Dataset, load_from_disk

    with tempfile.TemporaryDirectory() as cache:
        if path.is_dir():
            rows: Any = load_from_disk(str(path))["train"]
        else:
            rows = Dataset.from_parquet(str(path), cache_dir=cache)
        for row in rows:
            yield {name: _told(value) if name in _MESSAGES else value for name, value in row.items()}


def _told(value: Any) -> Any:
    """Messages without the keys that Arrow fills up: a message has no tool calls, and not none."""
    if not isinstance(value, list):
        return value
    return [
        {key: part for key, part in message.items() if part is not None} if isinstance(message, dict) else message
        for message in value
    ]
