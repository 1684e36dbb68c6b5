"""An ASGI app on a free loopback port, inside the running event loop, for as long as a `with` block."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from gymrail.errors import InfrastructureError

_START_SECONDS = 30.0
_STOP_SECONDS = 5
_IDLE_SECONDS = 600
"""How long a connection is kept. Closing one in the moment in which its client uses it again would break a request."""
_TURNS_TO_CONNECT = 3
"""Turns of the event loop from accepting a connection to the server's hearing of it. In Python 3.11 asyncio loses one
that is under way when its server closes (an assertion fails), and its client hears nothing more; uvicorn overlooks one
that it hears of as it stops."""


@contextlib.asynccontextmanager
async def serve_on_loopback(app: ASGIApp) -> AsyncIterator[str]:
    """Serve `app` and yield its address, without a slash at the end.

    Raises:
        InfrastructureError: the server did not start.
    """
    # With the protocol named, asyncio turns Nagle's algorithm off: otherwise every answer waits 40 ms for an
    # acknowledgement.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=_STOP_SECONDS,
            timeout_keep_alive=_IDLE_SECONDS,
            ws="none",
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        started = asyncio.create_task(server.ready.wait())
        try:
            await asyncio.wait([serving, started], timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not server.started:
                raise InfrastructureError("The server on loopback did not start; its log says why.")
            yield f"http://127.0.0.1:{port}"
        finally:
            started.cancel()
            server.should_exit = True
            await asyncio.wait([serving])
            await server.abort_connections()


class _Server(uvicorn.Server):
    """Leaves the process's signals alone: they belong to the command that runs. Leaves no connection open."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        for listener in (listener for server in self.servers for listener in server.sockets):
            with contextlib.suppress(NotImplementedError):  # on Windows
                loop.remove_reader(listener.fileno())
        for _ in range(_TURNS_TO_CONNECT):
            await asyncio.sleep(0)
        await super().shutdown(sockets)

    async def abort_connections(self) -> None:
        """Close what is still open: answers that took too long to end, and all where the server was cancelled."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # in which the loop closes the sockets
