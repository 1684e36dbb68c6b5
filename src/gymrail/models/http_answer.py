"""An HTTP/1.1 answer, read from whatever pieces it comes in: a generator that yields where it needs more."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Literal, NamedTuple, NoReturn, TypeVar

from gymrail.errors import GymrailError

T = TypeVar("T")
Reading = Generator[None, None, T]
"""Yields where it needs more of what the connection sends."""
Trouble = Literal["connect", "connect_timeout", "late", "silent", "broken", "malformed", "closed"]
"""No connection, or none in time; no answer in time; closed before the answer, or in the middle of it; no HTTP; closed
by us."""

_MOST_HEAD_BYTES = 1 << 18


class ExchangeError(GymrailError):
    """There is no whole answer."""

    def __init__(self, trouble: Trouble, message: str = "") -> None:
        super().__init__(message)
        self.trouble = trouble


class Headers(Mapping[str, str]):
    """An answer's headers; names are compared without regard to case."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        for value in self.getall(name):
            return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._fields))

    def __len__(self) -> int:
        return len(dict(self._fields))

    def getall(self, name: str) -> list[str]:
        """Every value of a name, in the order in which they came."""
        name = name.lower()
        return [value for key, value in self._fields if key == name]


class Exchange(NamedTuple):
    """An answer, its body read."""

    status: int
    headers: Headers
    body: bytes


class Received:
    """What a connection sent and nobody took."""

    __slots__ = ("data", "has_begun", "is_at_end")

    def __init__(self) -> None:
        self.data = b""
        self.has_begun = False
        self.is_at_end = False

    def until(self, end: bytes) -> Reading[bytes]:
        """Take what stands before `end`, and `end` too."""
        while (place := self.data.find(end)) < 0:
            if len(self.data) > _MOST_HEAD_BYTES:
                _refuse(f"no end of the head within {_MOST_HEAD_BYTES} bytes")
            yield from self._more()
        taken, self.data = self.data[:place], self.data[place + len(end) :]
        return taken

    def exactly(self, size: int) -> Reading[bytes]:
        pieces, length = [self.data], len(self.data)
        while length < size:
            self.data = b""
            yield from self._more()
            pieces.append(self.data)
            length += len(self.data)
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.data = whole[size:]
        return whole[:size]

    def rest(self) -> Reading[bytes]:
        pieces = []
        while not self.is_at_end:
            pieces.append(self.data)
            self.data = b""
            yield
        return b"".join((*pieces, self.data))

    def _more(self) -> Reading[None]:
        if self.is_at_end:
            raise ExchangeError("broken" if self.has_begun else "silent", "end of file")
        yield
        if self.is_at_end and not self.data:
            raise ExchangeError("broken" if self.has_begun else "silent", "end of file")


def read_answer(received: Received) -> Reading[tuple[Exchange, bool]]:
    """Return the answer, and whether its connection can carry another one."""
    version, status, fields = _read_head((yield from received.until(b"\r\n\r\n")))
    while status < 200:  # what comes before the answer, such as "100 Continue"
        if status == 101:
            _refuse("it speaks another protocol")
        version, status, fields = _read_head((yield from received.until(b"\r\n\r\n")))
    headers = Headers(fields)
    lengths = set(headers.getall("content-length"))
    codings = ",".join(headers.getall("transfer-encoding")).lower()
    is_kept = version == b"HTTP/1.1" and "close" not in ",".join(headers.getall("connection")).lower()
    if status in (204, 304):
        body = b""
    elif codings:
        if codings.strip() != "chunked":
            _refuse(f"a body in the form {codings!r}")
        body = yield from _read_chunks(received)
    elif lengths:
        length = lengths.pop()
        if lengths or not (length.isascii() and length.isdigit()):
            _refuse("no single length of the body")
        body = yield from received.exactly(int(length))
    else:
        body, is_kept = (yield from received.rest()), False
    return Exchange(status, headers, body), is_kept and not received.data


def _read_head(head: bytes) -> tuple[bytes, int, list[tuple[str, str]]]:
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    number = rest[:3]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not number.isdigit() or len(number) < 3:
        _refuse(f"no status line: {first[:100]!r}")
    fields = []
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name[0] in " \t" or name[-1] in " \t":
            _refuse(f"no header: {line[:100]!r}")
        fields.append((name.lower(), value.strip(" \t")))
    return version, int(number), fields


def _read_chunks(received: Received) -> Reading[bytes]:
    pieces = []
    while True:
        size = (yield from received.until(b"\r\n")).partition(b";")[0].strip()
        if not size or size.strip(b"0123456789abcdefABCDEF"):
            _refuse(f"no length of a chunk: {size[:100]!r}")
        if int(size, 16) == 0:
            break
        pieces.append((yield from received.exactly(int(size, 16))))
        if (yield from received.exactly(2)) != b"\r\n":
            _refuse("a chunk longer than its length")
    while (yield from received.until(b"\r\n")):  # what may follow the last chunk
        pass
    return b"".join(pieces)


def _refuse(what: str) -> NoReturn:
    raise ExchangeError("malformed", what)
