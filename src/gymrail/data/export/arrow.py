"""Rows as Arrow: `datasets.Dataset`, Parquet files, saved datasets. Files are converted row by row, in flat memory.

Tool calls and tools are JSON columns: as Arrow structs, every call would get the arguments of all others, as nulls.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from gymrail.data.jsonl import read_rows
from gymrail.errors import InputError

Row = dict[str, Any]
_MESSAGES = ("messages", "prompt", "completion", "chosen", "rejected", "context")
_LISTS = ("input_ids", "labels", "completions", "values", "runs", "rollouts")
_KINDS: dict[type, str] = {bool: "bool", int: "int64", float: "float64", str: "string"}
_BATCH = 1000


def to_dataset(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Return the rows as a `datasets.Dataset`.

    Raises:
        InputError: there are no rows.
        ImportError: `datasets` is not installed, or is too old to have JSON columns.
    """
    datasets = _datasets()
    collected = [dict(row) for row in rows]
    if not collected:
        raise InputError("There are no rows to make a dataset of; no rollout passed the selection.")
    features = _features(collected)
    return datasets.Dataset.from_list([_encoded(_with_images(row), features) for row in collected], features=features)


def save_dataset(rows: Mapping[str, Path], folder: Path) -> None:
    """Write the JSONL files of splits as a saved `datasets.DatasetDict`.

    Raises:
        ImportError: as `to_dataset`.
    """
    datasets = _datasets()
    features = _features_of(rows)
    with ExitStack() as opened, _quiet():
        splits = {split: opened.enter_context(_arrow(file, features)) for split, file in rows.items()}
        datasets.DatasetDict(splits).save_to_disk(str(folder))


def save_parquet(rows: Mapping[str, Path]) -> None:
    """Write Parquet beside the JSONL files of splits, which `datasets.load_dataset` reads with the same types.

    Raises:
        ImportError: as `to_dataset`.
    """
    features = _features_of(rows)
    for file in rows.values():
        with _arrow(file, features) as dataset, _quiet():
            dataset.to_parquet(str(file.with_suffix(".parquet")), batch_size=_BATCH)


def save_plain_parquet(rows: Mapping[str, Path]) -> None:
    """Write Parquet of structs beside the JSONL files of splits, for programs that read it with pandas and know no JSON
    columns.

    Raises:
        InputError: rows have different tools, which one Parquet schema would fill up with nulls.
        ImportError: `pyarrow` is not installed.
    """
    _datasets()
    import pyarrow as pa

    schema = pa.schema(_plain_types(list(rows.values()), pa))
    for file in rows.values():
        _write_plain(file, schema)


def _write_plain(rows: Path, schema: Any) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    file = rows.with_suffix(".parquet")
    with parquet.ParquetWriter(file, schema) as writer:
        batch: list[Row] = []
        for _, row in read_rows(rows):
            if "images" in schema.names:
                row["images"] = [{"bytes": _bytes_of(url)} for url in row.get("images") or ()]
            batch.append(row)
            if len(batch) == _BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _plain_types(files: Sequence[Path], pa: Any) -> dict[str, Any]:
    """The Arrow type of each column, from all rows."""
    keys: dict[str, None] = {}
    columns: dict[str, Any] = {}
    first: dict[str, Any] = {}
    for _, row in chain.from_iterable(map(read_rows, files)):
        for name, value in row.items():
            first.setdefault(name, value)
            if name in _MESSAGES and isinstance(value, list):
                keys.update((key, None) for message in value for key in message)
        if row.get("tools") != first.get("tools"):
            raise InputError(
                "The rollouts have different tools, and Parquet would fill up each tool's schema with the parameters "
                "of all others; export one environment at a time (--env NAME)."
            )
    call = pa.struct(
        {"id": pa.string(), "type": pa.string(), "function": pa.struct({"name": pa.string(), "arguments": pa.string()})}
    )
    message = pa.struct({key: pa.list_(call) if key == "tool_calls" else pa.string() for key in keys})
    for name, value in first.items():
        if name in _MESSAGES and isinstance(value, list):
            columns[name] = pa.list_(message)
        elif name == "images":
            columns[name] = pa.list_(pa.struct({"bytes": pa.binary()}))
        elif name != "tools" or value:
            columns[name] = pa.infer_type([value])
    return columns


@contextlib.contextmanager
def _arrow(rows: Path, features: Any) -> Iterator[Any]:
    """The rows of a file as a dataset that lies beside it for as long as it is used."""
    datasets = _datasets()
    from datasets.arrow_writer import ArrowWriter

    partial = rows.with_suffix(".arrow")
    try:
        with ArrowWriter(features=features, path=str(partial), writer_batch_size=_BATCH) as writer:
            for _, row in read_rows(rows):
                row = _with_images(row) if "images" in features else row
                writer.write(_encoded(row, features))
            writer.finalize()
        yield datasets.Dataset.from_file(str(partial))
    finally:
        partial.unlink(missing_ok=True)


def _features_of(files: Mapping[str, Path]) -> Any:
    """The type of each column in the files of all splits, which must have the same."""
    return _features(row for _, row in chain.from_iterable(map(read_rows, files.values())))


def _features(rows: Iterable[Row]) -> Any:
    """The type of each column, from all rows: a key that no message has is no field."""
    from datasets import Features, Image, Json, List, Value  # pyright: ignore[reportAttributeAccessIssue]

    keys: set[str] = set()
    first: Row = {}
    pictures, is_text = False, True
    for row in rows:
        pictures = pictures or bool(row.get("images"))
        for name, value in row.items():
            if first.get(name) is None:
                first[name] = value
            if name in _MESSAGES and isinstance(value, list):
                keys.update(key for message in value for key in message)
                is_text = is_text and all(isinstance(message.get("content", ""), str) for message in value)
                pictures = pictures or any(_pictures(message) for message in value)
    kinds = {"content": Value("string") if is_text else Json(), "tool_calls": List(Json())}
    message = {key: kinds.get(key, Value("string")) for key in sorted(keys)}
    columns: dict[str, Any] = {}
    for name, value in first.items():
        if name in _MESSAGES and isinstance(value, list):
            columns[name] = List(message)
        elif name != "images":
            columns[name] = _feature(name, value, (Json, List, Value))
    if pictures:
        columns["images"] = List(Image())
    return Features(columns)


def _feature(name: str, value: Any, types: tuple[Any, Any, Any]) -> Any:
    """The type of a column that holds no messages, told by its name and a value."""
    json, of, single = types
    if name in ("lineage", "_lineage"):
        return {key: _feature("lineage" if isinstance(part, dict) else key, part, types) for key, part in value.items()}
    if isinstance(value, bool):
        return single("bool")
    if isinstance(value, float) and name in ("margin", "reward"):
        return single("float64")
    if isinstance(value, int) and name == "step":
        return single("int64")
    if isinstance(value, str):
        return single("string")
    if name in _LISTS and isinstance(value, list) and value:
        kind = _KINDS.get(type(value[0]))
        return json() if kind is None else of(single(kind))
    return of(json()) if name in ("tools", "conversations") else json()


def _encoded(value: Any, feature: Any) -> Any:
    """Write JSON columns as JSON here: `datasets` takes a text that happens to be JSON, such as the answer "42", for
    the number, and rounds what it writes itself."""
    if value is None:
        return None
    if isinstance(feature, Mapping):
        return {name: _encoded(value.get(name), part) for name, part in feature.items()}
    if type(feature).__name__ == "Json":
        return orjson.dumps(value).decode()
    if type(feature).__name__ == "List":
        return [_encoded(part, feature.feature) for part in value]
    return value


def _with_images(row: Row) -> Row:
    """Move pictures out of the messages into the column `images`, where vision trainers look for them: an empty list
    where there is none. Tools' pictures stay where they are."""
    images = list(row.get("images") or ())
    for name in _MESSAGES:
        if isinstance(row.get(name), list):
            row[name] = [_without_pictures(message, images) for message in row[name]]
    return {**row, "images": images}


def _without_pictures(message: Any, images: list[Any]) -> Any:
    if not _pictures(message):
        return message
    parts = []
    for part in message["content"]:
        if _is_picture(part) and message.get("role") == "tool":
            # TRL fills places of the user's pictures alone; one with its picture in it is left to the template.
            parts.append({"type": "image", "image": part["image_url"]["url"]})
        elif _is_picture(part):
            images.append({"bytes": _bytes_of(part["image_url"]["url"]), "path": None})
            parts.append({"type": "image"})
        else:
            parts.append(part)
    return {**message, "content": parts}


def _pictures(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(_is_picture(part) for part in content)


def _is_picture(part: Any) -> bool:
    """Whether a content part holds a picture's bytes; a link to one stays where it is."""
    if not isinstance(part, dict) or part.get("type") != "image_url":
        return False
    return str((part.get("image_url") or {}).get("url", "")).startswith("data:")


def _bytes_of(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise InputError(f"The picture {url[:60]!r} is a link; only pictures in the rollouts themselves are exported.")
    return base64.b64decode(data)


def _datasets() -> Any:
    try:
        import datasets
        from datasets import Json  # noqa: F401 # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise ImportError(
            "Datasets need a release of `datasets` with JSON columns: pip install -U 'gymrail[data]'"
        ) from error
    return datasets


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from datasets.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
