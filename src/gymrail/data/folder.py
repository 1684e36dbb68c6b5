"""A directory that appears complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gymrail.data.jsonl import reason_of
from gymrail.errors import InputError


@contextmanager
def output_directory(path: Path, *, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty directory beside `path` that takes its place when the block ends well, and is gone otherwise.

    Args:
        marker: a file that every such directory holds; `overwrite` replaces no directory without it.

    Raises:
        InputError: `path` exists and is not to be replaced, or cannot be written.
    """
    path = Path(os.path.abspath(path))
    _check(path, marker, overwrite)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"Cannot write '{path}': {reason_of(error)}.") from None
    try:
        try:
            yield partial
        except OSError as error:  # what is read says so itself, as an InputError
            raise InputError(f"Cannot write '{path}': {reason_of(error)}.") from None
        if not (partial / marker).is_file():
            raise AssertionError(f"{marker} was not written")
        _put(partial, path, marker, overwrite)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(path: Path, marker: str, overwrite: bool) -> None:
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise InputError(f"'{path}' exists already; name another directory, or replace it with --overwrite.")
    if not (path / marker).is_file():
        raise InputError(
            f"'{path}' was not written by this command ('{marker}' is not in it), so --overwrite leaves it alone; "
            "name another directory."
        )


def _put(partial: Path, path: Path, marker: str, overwrite: bool) -> None:
    _check(path, marker, overwrite)  # it may have appeared meanwhile
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        if path.is_dir() and any(path.iterdir()):
            os.replace(path, old)
        os.replace(partial, path)
    except OSError as error:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise InputError(f"Cannot write '{path}': {reason_of(error)}.") from None
    shutil.rmtree(old, ignore_errors=True)
