"""A server on loopback ends with its block, and its connections with it."""

import asyncio
import socket

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from gymrail.serving.loopback import serve_on_loopback


async def idle(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "lifespan"
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def connected(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20)


@pytest.mark.parametrize("turns", range(6))
def test_a_client_that_connects_as_the_server_stops_is_neither_waited_for_nor_left_open(
    turns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clients: list[socket.socket] = []
    original = uvicorn.Server.main_loop

    async def main_loop(self: uvicorn.Server) -> None:
        await original(self)
        clients.append(connected(urls[0]))
        for _ in range(turns):  # in which the event loop makes the connection, or begins to
            await asyncio.sleep(0)

    async def run() -> None:
        async with serve_on_loopback(idle) as url:
            urls.append(url)

    urls: list[str] = []
    monkeypatch.setattr(uvicorn.Server, "main_loop", main_loop)
    asyncio.run(run())
    with clients[0] as client:
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:  # it was never accepted
            assert turns < 2
    assert "exceeded" not in capsys.readouterr().err


def test_a_server_that_is_cancelled_closes_its_connections() -> None:
    async def run() -> socket.socket:
        served = serve_on_loopback(idle)
        client = connected(await served.__aenter__())
        kept.append(served)
        await asyncio.sleep(0.1)
        return client

    kept: list[object] = []
    with asyncio.run(run()) as client:
        assert client.recv(1) == b""
