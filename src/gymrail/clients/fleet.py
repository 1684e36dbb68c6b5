"""Several servers of one environment: each episode stays on the one that seeded it; new ones go where the load is
least.

Covers: bounded retries with backoff of what is safe to repeat, `Retry-After`, cookies, servers that are down for a
while.
Does not cover: servers that join or leave while it runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, get_args

import orjson

from gymrail.errors import FAILURE_KINDS, EpisodeFailed, Failure, InfrastructureError, InputError, Stage
from gymrail.models.http import HttpClient, Reply, TryAgain, Unreachable

_log = logging.getLogger("gymrail.clients")
_BUSY = frozenset({429, 502, 503, 504})
"""Answers of a server, or of a proxy before it, that did not get to do the deed."""
_FIRST_WAIT_SECONDS = 0.1
_MAX_WAIT_SECONDS = 10.0
_DOWN_SECONDS = 1.0
_MAX_DOWN_SECONDS = 30.0


@dataclass(slots=True)
class Server:
    """One address, and how it is doing."""

    http: HttpClient
    episodes: int = 0
    """Open ones of ours."""
    failures: int = 0
    """Connections in a row that broke."""
    down_until: float = 0.0

    @property
    def url(self) -> str:
        return self.http.shown_url


@dataclass(slots=True)
class Session:
    """What an episode sends along: headers and the newest cookies."""

    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    def all_headers(self) -> dict[str, str]:
        if not self.cookies:
            return self.headers
        return {**self.headers, "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def keep_cookies(self, headers: Mapping[str, str]) -> None:
        """Take the cookies of an answer; they replace older ones of the same name."""
        lines = headers.getall("set-cookie") if "set-cookie" in headers else ()  # pyright: ignore[reportAttributeAccessIssue]
        for line in lines:
            pair, _, attributes = line.partition(";")
            name, _, value = pair.strip().partition("=")
            if "max-age=0" in attributes.lower().replace(" ", ""):
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value


class Fleet:
    """The servers, shared by all episodes of the process."""

    def __init__(
        self, urls: Sequence[str], headers: Mapping[str, str], *, timeout_seconds: float = 300.0, retries: int = 3
    ) -> None:
        if not urls:
            raise InputError("A remote environment needs at least one URL.")
        self.servers = [Server(HttpClient(url, headers, timeout_seconds)) for url in dict.fromkeys(urls)]
        self.timeout_seconds = timeout_seconds
        self.retries = retries
        self.retried = 0
        """Requests that were sent again."""

    def choose(self) -> Server:
        """Return the server with the fewest episodes, among those that are up where any is."""
        now = time.monotonic()
        return min(self.servers, key=lambda server: (max(0.0, server.down_until - now), server.episodes))

    async def post(self, server: Server, path: str, body: bytes, session: Session, *, repeat: bool) -> Reply:
        """Post to one server; with `repeat` again after a broken connection or a busy answer.

        Raises:
            InfrastructureError: no answer, a busy one, or a server error.
            EpisodeFailed: one of our servers says that its episode broke, and how.
        """
        attempt = 0
        while True:
            try:
                return await self.post_once(server, path, body, session)
            except _Passing as error:
                if not repeat or attempt >= self.retries:
                    told = f"{error} (after {attempt + 1} attempts)" if attempt else str(error)
                    raise InfrastructureError(told) from None
                await self.pause(server, path, attempt, error)
                attempt += 1

    async def post_once(self, server: Server, path: str, body: bytes, session: Session) -> Reply:
        """Post once.

        Raises:
            InfrastructureError: no answer, a busy one, or a server error.
            EpisodeFailed: one of our servers says that its episode broke, and how.
        """
        try:
            reply = await server.http.post_json(path, body, self.timeout_seconds, headers=session.all_headers())
        except TryAgain as error:
            server.failures += 1
            server.down_until = time.monotonic() + min(_DOWN_SECONDS * 2 ** (server.failures - 1), _MAX_DOWN_SECONDS)
            raise _Passing(str(error), error.after_seconds) from None
        except Unreachable as error:
            raise InfrastructureError(str(error)) from None
        server.failures, server.down_until = 0, 0.0
        failure = failure_in(reply)
        if failure is not None:
            raise EpisodeFailed(failure)
        if reply.status in _BUSY:
            raise _Passing(f"{server.url}/{path} answered {reply.status}: {excerpt(reply)}", _retry_after(reply))
        if reply.status >= 500:
            raise InfrastructureError(f"{server.url}/{path} answered {reply.status}: {excerpt(reply)}")
        session.keep_cookies(reply.headers)
        return reply

    async def pause(self, server: Server, path: str, attempt: int, error: InfrastructureError) -> None:
        """Wait before attempt `attempt + 2`."""
        self.retried += 1
        asked = error.after_seconds if isinstance(error, _Passing) else None
        jitter = Random().uniform(0.5, 1.0)
        seconds = min(max(asked or 0.0, _FIRST_WAIT_SECONDS * 2**attempt), _MAX_WAIT_SECONDS) * jitter
        _log.warning("%s/%s: retry %d of %d in %.2f s: %s", server.url, path, attempt + 1, self.retries, seconds, error)
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        for server in self.servers:
            await server.http.close()


class _Passing(InfrastructureError):
    """It may go away by itself."""

    def __init__(self, message: str, after_seconds: float | None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


def error_in(reply: Reply) -> dict[str, Any]:
    """What one of our servers says it refused or broke on: `kind`, `stage`, `message`; empty for other answers."""
    try:
        error = orjson.loads(reply.body).get("error")
    except (orjson.JSONDecodeError, AttributeError):
        return {}
    return error if isinstance(error, dict) else {}


def failure_in(reply: Reply) -> Failure | None:
    """The failure of an episode on one of our servers; it crosses the wire as what it is."""
    if reply.status < 500:
        return None
    error: Any = error_in(reply)
    if error.get("kind") in FAILURE_KINDS and error.get("stage") in get_args(Stage):
        return Failure(error["kind"], error["stage"], str(error.get("message", "")))
    return None


def excerpt(reply: Reply, limit: int = 300) -> str:
    """The beginning of an answer's body, for a message."""
    return reply.body[:limit].decode("utf-8", "replace")


def _retry_after(reply: Reply) -> float | None:
    value = reply.headers.get("retry-after", "")
    return float(value) if value.isdigit() else None
