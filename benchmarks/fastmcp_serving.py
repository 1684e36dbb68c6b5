"""The tool of `session_counter` on FastMCP, stateless and with JSON answers, which is its fastest mode. Runs in an
environment of its own, without Gymrail; it has one counter, since FastMCP has no episodes to find one in."""

from __future__ import annotations

import socket
import sys

import uvicorn
from fastmcp import FastMCP

server = FastMCP("session_counter")
counter = 0


@server.tool
async def increment_counter(count: int) -> str:
    """Add to the counter.

    Args:
        count: How much to add; negative to take away.
    """
    global counter
    counter += count
    return "ok"


def main() -> None:
    """Serve on a free port with the settings of `gymrail serve`: uvloop, httptools, no access log."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    app = server.http_app(path="/mcp", stateless_http=True, json_response=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, ws="none")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
