"""HTTP over the event loop's own transports: every form of an answer, and every way in which none comes."""

import asyncio
import contextlib
import gc
import re
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gymrail.errors import InputError
from gymrail.models.http import HttpClient, Reply, TryAgain
from gymrail.models.http_connection import Connection, ExchangeError

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def request_of(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Read a request: its head, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = [line.partition(":")[2] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
    return head, await reader.readexactly(int(length[0])) if length else b""


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[tuple[HttpClient, list[None]]]:
    """A server, and a client for it; the list grows by one with each connection."""
    connections: list[None] = []
    handling: set[Any] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(None)
        handling.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    http = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1?version=2", {"X-Key": "k"}, 60)
    yield http, connections
    await http.close()
    server.close()
    if handling:
        await asyncio.wait(handling, timeout=20)


def ask(serve: Serve, times: int = 1) -> tuple[list[Reply | str], int]:
    """Ask a server so many times, one after the other; return what came, and how many connections it took."""

    async def run() -> tuple[list[Reply | str], int]:
        found: list[Reply | str] = []
        async with serving(serve) as (http, connections):
            for _ in range(times):
                try:
                    found.append(await http.post_json("chat", b"{}", 20))
                except TryAgain as error:
                    found.append(f"{error.trouble}, {error.after_seconds}: {error}")
            return found, len(connections)

    return asyncio.run(run())


def answering(answer: bytes, pieces: int) -> Serve:
    """Answer each request with this, so many bytes at a time, and close where it says so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            for start in range(0, len(answer), pieces):
                writer.write(answer[start : start + pieces])
                await writer.drain()
                await asyncio.sleep(0)
            if b"connection: close" in answer.lower():
                return

    return serve


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERED_CHUNKS = CHUNKS + b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nContent-MD5: x\r\n\r\n"


@pytest.mark.parametrize("pieces", [1 << 20, 1, 7])
@pytest.mark.parametrize(
    ("answer", "body", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde", b"abcde", 1),
        (b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", b"", 1),
        (b"HTTP/1.1 204 No Content\r\nX: content-length\r\n\r\n", b"", 1),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", 1),
        (ANSWERED_CHUNKS, b"abc0123456789", 1),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", b"to the end", 2),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok", b"ok", 2),
    ],
    ids=["length", "empty", "no content", "not modified", "chunks", "continue", "to the end", "close"],
)
def test_an_answer_is_read_in_every_form_and_however_it_arrives(
    answer: bytes, body: bytes, connections: int, pieces: int
) -> None:
    replies, used = ask(answering(answer, pieces=pieces), times=2)
    assert [reply.body for reply in replies if isinstance(reply, Reply)] == [body, body]
    assert used == connections


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "connection, 0.0: the server closed the connection without an answer (end of file)"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "connection, None: the connection broke in the middle of the answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "connection, None: the connection broke"),
        (ANSWERED_CHUNKS[:-30], "connection, None: the connection broke"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "answer, None: what it answered is no HTTP/1.1 (Expected HTTP/"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "answer, None: what it answered is no HTTP/1.1 (Unexpected"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "answer, None: what it answered is no HTTP/1.1 (Invalid"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "answer, None: what it answered is"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "answer, None: what it answered is no HTTP/1.1 (a"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "connection, None: the connection broke"),
        (b"HTTP/1.1 101 Up\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "answer, None: what it answered is no"),
        (CHUNKS + b"-5\r\n", "answer, None: what it answered is no HTTP/1.1 (Invalid character in chunk size)"),
        (CHUNKS + b"1\r\nabc\r\n", "answer, None: what it answered is no HTTP/1.1 (Expected LF after chunk data)"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 300_000, "answer, None: what it answered is no HTTP/1.1 (no end of the"),
    ],
)  # fmt: skip
def test_what_is_no_whole_answer_is_named_and_the_next_request_has_a_connection_of_its_own(
    answer: bytes, said: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)
        await writer.drain()

    errors, connections = ask(serve, times=2)
    assert connections == 2
    for error in errors:
        assert isinstance(error, str)
        assert re.sub(r"http://127.0.0.1:\d+/v1: ", "", error).startswith(said)


def test_a_request_says_what_the_address_and_the_headers_are() -> None:
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, body = await request_of(reader)
            heads.append(head)
            assert body == b"{}"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def run() -> None:
        async with serving(serve) as (http, _):
            await http.post_json("chat", b"{}", 20)
            await http.post_json("chat", b"{}", 20, {"ACCEPT": "text/event-stream", "X-More": "m"})
            with pytest.raises(InputError, match="HTTP cannot carry the header 'X-Evil'"):
                await http.post_json("chat", b"{}", 20, {"X-Evil": "a\r\nX-Worse: b"})

    asyncio.run(run())
    first, *lines = heads[0].rstrip("\r\n").split("\r\n")
    assert first == "POST /v1/chat?version=2 HTTP/1.1"
    assert [line for line in lines if not line.startswith("host: 127.0.0.1:")] == [
        "user-agent: gymrail", "accept: */*", "content-type: application/json", "x-key: k", "content-length: 2"
    ]  # fmt: skip
    assert heads[1].split("\r\n")[3:7] == [
        "accept: text/event-stream", "content-type: application/json", "x-key: k", "x-more: m"
    ]  # fmt: skip


def test_bytes_that_nobody_asked_for_are_no_answer_to_the_next_request() -> None:
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        while True:
            await request_of(reader)
            served += 1
            one = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % served
            writer.write(one + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
            await writer.drain()

    replies, _ = ask(serve, times=3)
    assert [reply.body for reply in replies if isinstance(reply, Reply)] == [b"1", b"2", b"3"]


def test_a_connection_that_the_server_closed_while_the_loop_stood_still_is_not_used() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    closed = threading.Event()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def serve() -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            while b"\r\n\r\n{}" not in connection.recv(65536):
                pass
            connection.sendall(answer)
            connection.close()
            closed.set()

    async def run() -> list[bytes]:
        http = HttpClient(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", {}, 60)
        bodies = [(await http.post_json("x", b"{}", 20)).body]
        assert closed.wait(20)
        pool = next(iter(http._plain._pools.values())) if http._plain else None
        assert pool is not None
        pool.idle = [(connection, since - 2) for connection, since in pool.idle]  # as if it had stood still for long
        bodies.append((await http.post_json("x", b"{}", 20)).body)
        await http.close()
        return bodies

    with listening:
        thread = threading.Thread(target=serve)
        thread.start()
        assert asyncio.run(run()) == [b"ok", b"ok"]
        thread.join(20)


def test_a_cancelled_request_leaves_its_connection_to_nobody() -> None:
    async def run() -> tuple[bytes, int]:
        arrived = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            _, body = await request_of(reader)
            if body == b"slow":
                arrived.set()
                await reader.read()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        async with serving(serve) as (http, connections):
            asking = asyncio.create_task(http.post_json("x", b"slow", 20))
            await asyncio.wait_for(arrived.wait(), 20)
            asking.cancel()
            await asyncio.wait([asking])
            return (await http.post_json("x", b"quick", 20)).body, len(connections)

    assert asyncio.run(run()) == (b"quick", 2)


def test_a_body_larger_than_any_buffer_goes_and_comes_whole() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, body = await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body[::-1]))

    async def run() -> bool:
        async with serving(serve) as (http, _):
            body = bytes(range(256)) * 40_000
            return (await http.post_json("x", body, 50)).body == body[::-1]

    assert asyncio.run(run())


def test_a_connection_that_was_closed_as_soon_as_it_was_made_is_not_waited_for() -> None:
    class Noting(Connection):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    lost = asyncio.Event()

    async def run() -> str:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server, asyncio.timeout(20):
            _, connection = await loop.create_connection(lambda: Noting(loop), *server.sockets[0].getsockname())
            await lost.wait()
            with pytest.raises(ExchangeError) as found:
                await connection.exchange(b"GET / HTTP/1.1\r\n\r\n", 60)
        return found.value.trouble

    assert asyncio.run(run()) == "silent"


def test_a_closed_connection_needs_no_garbage_collection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()

    async def run() -> weakref.ref[Connection]:
        async with serving(serve) as (http, _):
            await http.post_json("x", b"{}", 20)
            assert http._plain is not None
            return weakref.ref(next(iter(http._plain._pools.values())).idle[0][0])

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(run())() is None
    finally:
        gc.enable()


def test_a_client_that_nobody_closes_leaves_nothing_open_where_its_loop_ends() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    ends: list[bytes] = []

    def serve() -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                connection.settimeout(20)
                with contextlib.suppress(ConnectionError):
                    ends.append(connection.recv(1))

    http = HttpClient(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", {}, 60)
    with listening:
        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(2):
            assert asyncio.run(http.get("x", 20)).body == b"ok"
        thread.join(20)
    assert not thread.is_alive()
    gc.collect()  # what is open warns then, and a warning is an error here
