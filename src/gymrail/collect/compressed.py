"""Lines in a zstd file: each on disk before the next is written, and every file a standard one for `zstd -dc`.

A frame takes a few megabytes of lines. Each line ends a block, so an unfinished frame is readable up to its last whole
line. What a crash leaves behind is repaired in place, by bytes at the end alone: a half-written block is cut off, and
an empty last block (three bytes, since our frames declare neither size nor checksum) ends the frame. Whole lines are
never written again, so there is no moment at which one could be lost.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from gymrail.errors import InputError

SUFFIX = ".zst"
LEVEL = 3
FRAME_BYTES = 4 << 20
"""Of lines in one frame; more would hardly compress better, and a repair reads the last frame."""

_END = b"\x01\x00\x00"
"""An empty raw block that is the last of its frame."""
_NEWLINE_END = b"\x09\x00\x00\n"
"""The same with one byte in it."""
_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = b"\x2a\x4d\x18"
"""After a byte of 0x50 to 0x5f."""
_RLE, _RESERVED = 1, 3
_READ_BYTES = 1 << 20


def is_compressed(path: Path) -> bool:
    """Whether a file's name says that it is a zstd file."""
    return path.suffix == SUFFIX


def check_installed() -> None:
    """Make sure that zstd files can be read and written.

    Raises:
        InputError: the package is missing; the text has the command that installs it.
    """
    _zstandard()


class Frames:
    """Makes the bytes that append lines to a zstd file; whoever writes them says what became of them."""

    def __init__(self) -> None:
        self._compressor = _zstandard().ZstdCompressor(level=LEVEL, write_content_size=False, write_checksum=False)
        self._frame: Any = None
        self._bytes = 0
        self._is_open = False
        """The file's last frame has no end yet."""

    def add(self, line: bytes) -> bytes:
        """Return what to append to the file for this line."""
        end = b"" if self._frame is not None or not self._is_open else _END
        if self._frame is None:
            self._frame, self._bytes = self._compressor.compressobj(), 0
        block = self._frame.compress(line) + self._frame.flush(_zstandard().COMPRESSOBJ_FLUSH_BLOCK)
        self._bytes += len(line)
        return end + block

    def written(self) -> None:
        """Note that the line is in the file."""
        self._is_open = True
        if self._bytes >= FRAME_BYTES:
            self._frame = None

    def lost(self) -> None:
        """Note that nothing of the line is in the file: its frame cannot go on, because later blocks refer to it."""
        self._frame = None

    def end(self) -> bytes:
        """Return what to append when no line follows."""
        return _END if self._is_open else b""


def repair(path: Path, file: int) -> bytes:
    """End a zstd file at a whole line and a whole frame; return what had to be cut off, which is in no whole line.

    Raises:
        InputError: the file is damaged, or its last frame is unfinished and was made by another program.
        OSError: it cannot be written.
    """
    size = os.fstat(file).st_size
    if size == 0:
        return b""
    with mmap.mmap(file, size, access=mmap.ACCESS_READ) as data:
        frame = _last_frame(data, size, path)
        if frame is None:
            return b""
        good, needs_newline = _whole_lines(data, frame, path)
        rest = data[good:size]
    if rest:
        _set_aside(path, rest)
        os.ftruncate(file, good)
    if good > frame.start:
        os.write(file, _NEWLINE_END if needs_newline else _END)
    return rest


@contextmanager
def open_lines(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading line by line, compressed or not. What an unfinished frame holds is read too.

    Raises:
        InputError: the file is no zstd file, or damaged.
        OSError: it cannot be read.
    """
    if not is_compressed(path):
        with path.open("rb") as lines:
            yield lines
        return
    zstandard = _zstandard()
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
        try:
            with io.BufferedReader(reader, _READ_BYTES) as lines:
                yield lines
        except zstandard.ZstdError as error:
            raise InputError(f"'{path}' is damaged, or no zstd file: {error}.") from None


class _Frame(NamedTuple):
    """An unfinished frame at the end of a file."""

    start: int
    blocks: list[int]
    """Where each whole block ends; the first entry is where the frame's header ends. Empty for half a header."""
    is_ours: bool
    """It declares neither size nor checksum."""


def _last_frame(data: mmap.mmap, size: int, path: Path) -> _Frame | None:
    """Walk all frames by their headers; return the last one if it is unfinished."""
    position = 0
    while position < size:
        start = position
        header = data[start : start + 18]
        if header[1:4] == _SKIPPABLE_MAGIC and header[0] & 0xF0 == 0x50 and len(header) >= 8:
            position += 8 + int.from_bytes(header[4:8], "little")
            if position > size:
                return _Frame(start, [], False)
            continue
        if header[:4] != _MAGIC[: len(header)]:
            if data[start:size].strip(b"\0") == b"":  # what a power loss leaves of a file that had grown
                return _Frame(start, [], False)
            raise _damaged(path, start)
        length = _header_length(header)
        if length is None or start + length > size:
            return _Frame(start, [], False)
        position, has_checksum = start + length, bool(header[4] & 4)
        blocks = [position]
        is_last = False
        while not is_last:
            if position + 3 > size:
                return _Frame(start, blocks, _is_ours(header))
            block = data[position] | data[position + 1] << 8 | data[position + 2] << 16
            is_last, kind = bool(block & 1), block >> 1 & 3
            if kind == _RESERVED:
                raise _damaged(path, position)
            position += 3 + (1 if kind == _RLE else block >> 3)
            if position > size:
                return _Frame(start, blocks, _is_ours(header))
            blocks.append(position)
        if has_checksum:
            position += 4
            if position > size:
                return _Frame(start, blocks, False)
    return None


def _header_length(header: bytes) -> int | None:
    """The length of a frame's header; None where there is too little of it to know."""
    if len(header) < 5:
        return None
    flags = header[4]
    is_single_segment = bool(flags & 0x20)
    dictionary = (0, 1, 2, 4)[flags & 3]
    content_size = (1 if is_single_segment else 0, 2, 4, 8)[flags >> 6]
    return 5 + (not is_single_segment) + dictionary + content_size


def _is_ours(header: bytes) -> bool:
    return header[4] & 0b11100111 == 0


def _whole_lines(data: mmap.mmap, frame: _Frame, path: Path) -> tuple[int, bool]:
    """Where the frame's last whole line ends, which is always the end of a block, and whether it lacks its newline."""
    good = frame.start
    if len(frame.blocks) < 2:
        return good, False
    if not frame.is_ours:
        raise InputError(
            f"The end of '{path}' was cut off, and another program wrote it, so that it cannot be repaired in place. "
            f"Keep what is there by: zstd -dc {path.name} > {path.stem}, then remove {path.name} and resume."
        )
    zstandard = _zstandard()
    reader = zstandard.ZstdDecompressor().decompressobj()
    text, before = b"", frame.start
    try:
        for end in frame.blocks:
            made = reader.decompress(data[before:end])
            before = end
            if made.endswith(b"\n"):
                good, text = end, b""
            else:
                text += made
    except zstandard.ZstdError as error:
        raise InputError(f"'{path}' is damaged between bytes {frame.start} and {before}: {error}.") from None
    if text and _is_object(text):
        return before, True
    return good, False


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _set_aside(path: Path, rest: bytes) -> None:
    with path.with_name(f"{path.name}.torn").open("ab") as aside:
        aside.write(rest)


def _damaged(path: Path, position: int) -> InputError:
    return InputError(f"'{path}' is damaged at byte {position}: it goes on there with something that is not zstd.")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise InputError("zstd files need the package `zstandard`: pip install 'gymrail[zstd]'") from None
    return zstandard
