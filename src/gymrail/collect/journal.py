"""The journal: an append-only JSONL file of rollouts. One rollout, one line, written whole.

    with Journal.open(path) as journal:
        journal.append(rollout)      # durable against kill -9 when it returns

One writer at a time; readers need no lock. A line that a crash cut off is moved to `<name>.torn` by the next writer.
A path that ends in `.zst` is a zstd file (see `compressed`), to write and to read.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
from pydantic import BaseModel

from gymrail.collect import compressed
from gymrail.data.jsonl import parse_line
from gymrail.errors import GymrailError, InputError
from gymrail.rollout import Rollout
from gymrail.task import Task

logger = logging.getLogger(__name__)

FSYNC_SECONDS = 1.0
"""What a power loss may cost at most, with `fsync`; one sync then covers all lines of that time."""
_CHUNK_BYTES = 1 << 20


class JournalError(GymrailError):
    """The journal cannot be written: the disk is full, the directory read-only. What was appended before is safe."""


class Key(NamedTuple):
    """Which rollout of a run this is. With the task's id in it, a changed dataset is never mistaken for done."""

    environment: str
    task_index: int
    task_id: str
    repeat: int


def key_of(rollout: Rollout) -> Key:
    """Return the key of a rollout."""
    return Key(rollout.environment, rollout.task_index, rollout.task.id, rollout.repeat)


class Journal:
    """A journal that is open for appending. Make one with `Journal.open`."""

    def __init__(self, path: Path, file: int, lock: int, fsync: bool) -> None:
        self.path = path
        self._file = file
        self._lock = lock
        self._size = os.fstat(file).st_size
        """End of the last whole line."""
        self._frames = compressed.Frames() if compressed.is_compressed(path) else None
        self._syncer = _Syncer(file) if fsync else None

    @classmethod
    def open(cls, path: Path, *, fsync: bool = False) -> Self:
        """Open or create a journal and take its lock; a torn last line is moved aside.

        Args:
            fsync: survive power loss too, but for the last second; without it, everything but power loss.

        Raises:
            InputError: another writer has it open.
            JournalError: the file cannot be written.
        """
        if compressed.is_compressed(path):
            compressed.check_installed()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(path)
        except OSError as error:
            raise _unwritable(path, error) from None
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            os.close(lock)
            raise _unwritable(path, error) from None
        try:
            _repair(path, file)
            return cls(path, file, lock, fsync)
        except (OSError, InputError) as error:
            os.close(file)
            os.close(lock)
            if isinstance(error, InputError):
                raise
            raise _unwritable(path, error) from None

    def append(self, rollout: Rollout) -> None:
        """Write one rollout as one line.

        Raises:
            JournalError: it could not be written whole; nothing of it stays in the file.
        """
        self.append_line(encode(rollout))

    def append_line(self, line: bytes) -> None:
        """Write a rollout that `encode` made a line of; raises what `append` raises."""
        if self._file < 0:
            raise JournalError(f"'{self.path}' is closed; open it again to append.")
        if self._syncer is not None and self._syncer.error is not None:
            raise _unwritable(self.path, self._syncer.error)
        is_whole = False
        try:
            data = line if self._frames is None else self._frames.add(line)
            written = os.write(self._file, data)
            while written < len(data):  # the disk is nearly full, or a signal came: the rest says which
                written += os.write(self._file, data[written:])
            is_whole = True
        except OSError as error:
            raise _unwritable(self.path, error) from None
        finally:
            if not is_whole:
                self._take_back()
        self._size += written
        if self._frames is not None:
            self._frames.written()
        if self._syncer is not None:
            self._syncer.dirty.set()

    def keys(self) -> set[Key]:
        """Return the keys of all rollouts that are in the file."""
        return read_keys(self.path)

    def read(self, task_type: type[Task] = Task) -> Iterator[Rollout]:
        """Yield the rollouts one by one."""
        return read_rollouts(self.path, task_type)

    def close(self) -> None:
        """Give the file and the lock back; safe to call again.

        Raises:
            JournalError: the last lines could not be synced.
        """
        if self._file < 0:
            return
        error = self._end()
        failed = self._syncer.stop() if self._syncer is not None else None
        error = error or failed
        os.close(self._file)
        os.close(self._lock)
        self._file = self._lock = -1
        if error is not None:
            raise _unwritable(self.path, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _take_back(self) -> None:
        """Leave nothing of a line that could not be written whole."""
        if self._frames is not None:
            self._frames.lost()
        if os.fstat(self._file).st_size > self._size:
            os.ftruncate(self._file, self._size)

    def _end(self) -> OSError | None:
        """Make a whole file of it; a reader, and the next writer, can do without."""
        if self._frames is None:
            return None
        end = self._frames.end()
        try:
            written = os.write(self._file, end) if end else 0
        except OSError as error:
            return error
        if written < len(end):
            os.ftruncate(self._file, self._size)
        return None


def read_rollouts(path: Path, task_type: type[Task] = Task) -> Iterator[Rollout]:
    """Yield a journal's rollouts one by one. A last line that lacks its end is being written, or torn, and is left out.

    Raises:
        InputError: the file is missing or a line is no rollout; the text names the line.
    """
    for row in read_rows(path):
        yield Rollout.from_row(row, task_type)


def read_keys(path: Path) -> set[Key]:
    """Return the keys of a journal's rollouts; the rollouts themselves are not built."""
    return {key_of_row(row) for row in read_rows(path)}


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a journal's rows as they are; raises what `read_rollouts` raises."""
    try:
        with compressed.open_lines(path) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n") and not _is_whole(line):
                    return
                if line.isspace():
                    continue
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError:
                    row = None
                yield row if isinstance(row, dict) else parse_line(line, path, number)
    except OSError as error:
        raise InputError(f"Cannot read '{path}': {error.strerror or error}.") from None


def key_of_row(row: Mapping[str, Any]) -> Key:
    """Return the key of a journal's row."""
    own = row.get("gymrail")
    if not own:
        return key_of(Rollout.from_row(row))
    return Key(own["environment"], row.get("_ng_task_index", 0), own["task_id"], row.get("_ng_rollout_index", 0))


def encode(rollout: Rollout) -> bytes:
    """Return the rollout's line. What JSON cannot carry (an author's object in the metrics) is written as text."""
    return encode_row(rollout.to_row())


def encode_row(row: Mapping[str, Any]) -> bytes:
    """Return a row's line, as `encode` does."""
    option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    try:
        return orjson.dumps(row, option=option)
    except TypeError:
        return orjson.dumps(_plain(row), option=option)


def _take_lock(path: Path) -> int:
    """Lock a file beside the journal that names the holder; the system frees it however the process ends."""
    name = path.name.removesuffix(compressed.SUFFIX)  # the two forms of one file have one writer
    lock = os.open(path.with_name(f".{name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 64).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise InputError(
            f"'{path}' is being written by process {holder}; one run has one writer. "
            f"Wait for it, stop it (kill {holder}), or name another run."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _repair(path: Path, file: int) -> None:
    """End the file at a whole line: finish one that lacks only its newline, move any other rest to `<name>.torn`."""
    if compressed.is_compressed(path):
        rest = compressed.repair(path, file)
        if rest:
            _warn_torn(path, len(rest))
        return
    size = os.fstat(file).st_size
    start = _last_line_start(file, size)
    if start == size:
        return
    rest = os.pread(file, size - start, start)
    if _is_whole(rest):
        os.write(file, b"\n")
        return
    torn = path.with_name(f"{path.name}.torn")
    with torn.open("ab") as aside:
        aside.write(rest + b"\n")
    os.ftruncate(file, start)
    _warn_torn(path, len(rest))


def _warn_torn(path: Path, length: int) -> None:
    logger.warning(
        "%s: the last line was cut off by a crash; its %d bytes are in %s.torn, and it is written again when its turn "
        "comes.",
        path,
        length,
        path,
    )


def _is_whole(line: bytes) -> bool:
    """Whether a line that lacks its newline is complete otherwise: no proper prefix of an object is one."""
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _last_line_start(file: int, size: int) -> int:
    position = size
    while position > 0:
        start = max(0, position - _CHUNK_BYTES)
        newline = os.pread(file, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _unwritable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"Cannot write '{path}': {error.strerror or error}. "
        f"Everything recorded so far is safe; make room or name another directory, then resume."
    )


def _plain(value: Any) -> Any:
    """Rewrite what JSON or UTF-8 cannot carry; a detour for the rows that need it."""
    if isinstance(value, dict):
        return {_plain(key) if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    try:
        orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return _plain(str(value)) if isinstance(value, int) else _plain(repr(value))
    return value


class _Syncer:
    """Syncs the file from a thread of its own, so that a slow disk does not stop the event loop."""

    def __init__(self, file: int) -> None:
        self.error: OSError | None = None
        self.dirty = threading.Event()
        self._stopped = threading.Event()
        self._file = file
        self._thread = threading.Thread(target=self._run, name="gymrail-journal-fsync", daemon=True)
        self._thread.start()

    def stop(self) -> OSError | None:
        """Sync what is left and return what went wrong, if anything did."""
        self._stopped.set()
        self.dirty.set()
        self._thread.join()
        return self.error

    def _run(self) -> None:
        while self.error is None:
            self.dirty.wait()
            self.dirty.clear()
            try:
                os.fsync(self._file)
            except OSError as error:
                self.error = error
            if self._stopped.wait(FSYNC_SECONDS):
                break
        if self.error is None:
            try:
                os.fsync(self._file)
            except OSError as error:
                self.error = error
