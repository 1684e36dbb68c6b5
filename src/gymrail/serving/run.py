"""Runs an app until the process is told to stop."""

from __future__ import annotations

import errno
import gc
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from gymrail.errors import InputError

_BACKLOG = 2048
_GRACE_SECONDS = 15


def run_server(app: ASGIApp, host: str, port: int, on_bound: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; `on_bound` is told the address once it is ours.

    Raises:
        InputError: the address cannot be had.
    """
    with _bind(host, port) as listener:
        if on_bound is not None:
            shown = f"[{host.strip('[]')}]" if ":" in host else host
            on_bound(f"http://{shown}:{listener.getsockname()[1]}")
        config = uvicorn.Config(
            app,
            loop="auto",  # uvloop and httptools, where they are installed
            http="auto",
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,  # a capability URL is a credential
            backlog=_BACKLOG,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        # What is imported stays: without this, the collector walks through it again and again, 100 ms at a time.
        gc.collect()
        gc.freeze()
        uvicorn.Server(config).run(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(_BACKLOG)  # who is told the address now may connect now
    except (OSError, OverflowError) as error:
        listener.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise InputError(f"Port {port} is taken; choose another with --port, or 0 for any.") from None
        raise InputError(f"Cannot listen on {host!r}, port {port}: {error}.") from None
    return listener
