"""HTTP/1.1 without TLS and without a proxy, over the event loop's transports: how a model server on this machine or in
this network is asked.

There is no thread of its own to wait for and to wake, so an exchange costs a third of what it costs over the client
library.

Covers: kept connections, event loops in any number of threads and one after the other, answers with a length, in chunks
or up to the end of the connection, a close meanwhile.
Does not cover: TLS, proxies, redirects, compressed or streamed answers; `http.py` has the first two.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator

from gymrail.models.http_connection import Connection, Exchange, ExchangeError, reason_of

_IDLE_SECONDS = 90.0
_TRUSTED_SECONDS = 1.0
"""Idle for longer, a connection is looked at before it is used: the event loop may have stood still meanwhile."""


class PlainClient:
    """Connections to one server, for as many requests at once as there are; close it once."""

    def __init__(self, host: str, port: int, connect_seconds: float) -> None:
        self._address = host, port
        self._connect_seconds = connect_seconds
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self.is_closed = False

    async def send(self, request: bytes, limit_seconds: float) -> Exchange:
        """Send a whole request, head and body, and read the answer.

        Raises:
            ExchangeError: there is no whole answer.
        """
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + limit_seconds
        pool = self._pools.get(loop)
        if pool is None or self._process != os.getpid():
            pool = await self._open_pool(loop)
        connection = pool.take() or await self._connect(loop, limit_seconds)
        if self.is_closed:
            connection.abort()
            raise ExchangeError("closed")
        pool.busy.add(connection)
        try:
            answer = await connection.exchange(request, deadline - time.monotonic())
        except ExchangeError:
            if self.is_closed:
                raise ExchangeError("closed") from None
            raise
        finally:
            pool.give_back(connection)
        return answer

    async def close(self) -> None:
        """Close the connections and break off what is under way, whichever event loop waits for it."""
        with self._lock:
            self.is_closed = True
            pools = list(self._pools.items())
            self._pools.clear()
        for loop, pool in pools:
            if loop is asyncio.get_running_loop():
                pool.close()
            else:
                with contextlib.suppress(RuntimeError):  # a loop that has ended has closed them
                    loop.call_soon_threadsafe(pool.close)
        await asyncio.sleep(0)  # in which the loop closes the sockets

    async def _open_pool(self, loop: asyncio.AbstractEventLoop) -> _Pool:
        pool = _Pool()
        assert pool.guard is not None
        await anext(pool.guard)
        with self._lock:
            if self._process != os.getpid():  # a fork has copies of what another process uses
                self._process, self._pools = os.getpid(), weakref.WeakKeyDictionary()
            return self._pools.setdefault(loop, pool)

    async def _connect(self, loop: asyncio.AbstractEventLoop, limit_seconds: float) -> Connection:
        is_late = limit_seconds < self._connect_seconds
        limit = asyncio.timeout(min(limit_seconds, self._connect_seconds))
        try:
            async with limit:
                _, connection = await loop.create_connection(lambda: Connection(loop), *self._address)
            return connection
        except TimeoutError:
            if not limit.expired():
                raise ExchangeError("connect", os.strerror(errno.ETIMEDOUT)) from None
            raise ExchangeError("late" if is_late else "connect_timeout") from None
        except OSError as error:
            raise ExchangeError("connect", reason_of(error)) from None


class _Pool:
    """The connections of one event loop."""

    def __init__(self) -> None:
        self.idle: list[tuple[Connection, float]] = []
        self.busy: set[Connection] = set()
        self.guard: AsyncGenerator[None, None] | None = _until_the_loop_ends(self)

    def take(self) -> Connection | None:
        while self.idle:
            connection, since = self.idle.pop()
            seconds = time.monotonic() - since
            if connection.is_open and (
                seconds < _TRUSTED_SECONDS or (seconds < _IDLE_SECONDS and connection.is_silent())
            ):
                return connection
            connection.abort()
        return None

    def give_back(self, connection: Connection) -> None:
        self.busy.discard(connection)
        if not (connection.is_open and connection.is_reusable):
            connection.abort()
            return
        now = time.monotonic()
        self.idle.append((connection, now))
        while self.idle[0][1] < now - _IDLE_SECONDS:
            self.idle.pop(0)[0].abort()

    def close(self) -> None:
        for connection in (*self.busy, *(connection for connection, _ in self.idle)):
            connection.abort()
        self.idle.clear()


async def _until_the_loop_ends(pool: _Pool) -> AsyncGenerator[None, None]:
    """Waits at its `yield` until the event loop shuts its generators down, and closes what is open: nothing else tells
    that a loop ends."""
    try:
        yield
    finally:
        pool.close()
        pool.guard = None  # which would keep the loop in memory
