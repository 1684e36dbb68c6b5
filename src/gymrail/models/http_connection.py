"""A connection that carries HTTP/1.1 exchanges over the event loop's transport; httptools reads the answers."""

from __future__ import annotations

import asyncio
import os
import select
from typing import Literal, NamedTuple

from httptools import HttpParserError, HttpResponseParser
from pyreqwest.http import HeaderMap

from gymrail.errors import GymrailError

Trouble = Literal["connect", "connect_timeout", "late", "silent", "broken", "malformed", "closed"]
"""No connection, or none in time; no answer in time; closed before it, or in the middle; no HTTP; closed by us."""

_MOST_HEAD_BYTES = 1 << 18


class ExchangeError(GymrailError):
    """There is no whole answer."""

    def __init__(self, trouble: Trouble, message: str = "") -> None:
        super().__init__(message)
        self.trouble = trouble


class Exchange(NamedTuple):
    """An answer, its body read."""

    status: int
    headers: HeaderMap
    body: bytes


class Connection(asyncio.Protocol):
    """Carries one exchange at a time; the `on_` methods are what the parser calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_open = True
        self.is_reusable = False
        """Whether the last exchange left nothing behind."""
        self._loop = loop
        self._transport: asyncio.Transport
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._answer: asyncio.Future[Exchange] | None = None
        self._size = 0
        self._headers: HeaderMap | None = None
        """What of the answer came: so many bytes, its whole head."""
        self._fields: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []

    async def exchange(self, request: bytes, limit_seconds: float) -> Exchange:
        if not self.is_open:  # closed as soon as it was made
            raise ExchangeError("silent", "end of file")
        self.is_reusable, self._size, self._headers = False, 0, None
        answer = self._answer = self._loop.create_future()
        timer = self._loop.call_later(max(0.0, limit_seconds), self._fail, "late")
        try:
            self._transport.write(request)
            return await answer
        finally:
            timer.cancel()
            self._answer = None
            self._pieces = []  # which an idle connection would keep in memory

    def abort(self) -> None:
        self.is_open = False
        self._transport.abort()

    def is_silent(self) -> bool:
        """Whether nothing came while nobody asked: the end of the connection, mostly."""
        if not hasattr(select, "poll"):  # Windows
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._answer is None or self._answer.done():
            self.abort()  # nobody asked
            return
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self.is_reusable = False
            ours = error.__context__
            self._fail("malformed", str(ours if isinstance(ours, ExchangeError) else error))
        if self._headers is None and self._size > _MOST_HEAD_BYTES:
            self._fail("malformed", f"no end of the head within {_MOST_HEAD_BYTES} bytes")

    def eof_received(self) -> None:
        self.is_open = False
        if self._headers is not None and not {"content-length", "transfer-encoding"} & {*self._headers}:
            self._finish(self._headers)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._fail("broken" if self._size else "silent", reason_of(exc) if isinstance(exc, OSError) else "end of file")
        self._parser = None  # which refers to this object

    def on_message_begin(self) -> None:
        if self._headers is not None:
            raise ExchangeError("malformed", "an answer that nobody asked for")
        self._fields, self._pieces = [], []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.decode("ascii"), value.strip(b" \t").decode("ascii", "backslashreplace")))

    def on_headers_complete(self) -> None:
        if self._status() == 101:
            raise ExchangeError("malformed", "it speaks another protocol")
        if self._status() < 200:  # what comes before the answer, such as "100 Continue"
            return
        headers = HeaderMap(self._fields)
        codings = ",".join(headers.getall("transfer-encoding")).lower()
        if codings not in ("", "chunked"):
            raise ExchangeError("malformed", f"a body in the form {codings!r}")
        self._headers = headers
        if self._status() in (204, 304):  # of which older parsers expect the body whose length it may name
            self._finish(headers)

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self._headers is not None and self._parser is not None:
            # A server may answer before it has the whole request.
            self.is_reusable = self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
            self._finish(self._headers)

    def _status(self) -> int:
        assert self._parser is not None
        return self._parser.get_status_code()

    def _finish(self, headers: HeaderMap) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Exchange(self._status(), headers, b"".join(self._pieces)))

    def _fail(self, trouble: Trouble, message: str = "") -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ExchangeError(trouble, message))


def reason_of(error: OSError) -> str:
    """What the operating system says, without the name of a place in our code."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
