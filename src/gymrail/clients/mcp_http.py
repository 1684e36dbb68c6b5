"""An MCP server behind a URL: every message is one POST, answered by JSON or by a short event stream.

Covers: servers with and without sessions; one session per connection.
Does not cover: requests of the server to us in the middle of an answer (we declare no capability that allows one),
OAuth, resuming a broken stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson

from gymrail.clients.mcp_rpc import result_of
from gymrail.errors import InfrastructureError
from gymrail.models.http import HttpClient, TryAgain, Unreachable
from gymrail.models.http import Reply as HttpReply

_GOODBYE_SECONDS = 5.0


class HttpConnection:
    """A session with a server over HTTP."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout_seconds: float) -> None:
        parts = urlsplit(url)
        folder, _, self._path = parts.path.rstrip("/").rpartition("/")
        base = urlunsplit((parts.scheme, parts.netloc, folder, parts.query, ""))
        self._http = HttpClient(base, headers, timeout_seconds)
        self.name = f"{self._http.shown_url}/{self._path}"
        self._timeout_seconds = timeout_seconds
        self._headers = {"Accept": "application/json, text/event-stream"}
        self._last_id = 0

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._last_id += 1
        message = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
        reply = await self._post(message)
        answers = (entry for entry in _messages(reply) if entry.get("id") == message["id"] or _is_refusal(entry))
        found = next(answers, None)
        if found is None:
            raise InfrastructureError(
                f"The MCP server {self.name} answered {method} with {reply.status} and no result: {reply.body[:200]!r}"
            )
        result = result_of(found, self.name)
        if method == "initialize":
            self._headers["MCP-Protocol-Version"] = str(result.get("protocolVersion", ""))
            session = reply.headers.get("mcp-session-id")
            if session:
                self._headers["Mcp-Session-Id"] = session
        return result

    async def notify(self, method: str) -> None:
        await self._post({"jsonrpc": "2.0", "method": method})

    async def close(self) -> None:
        """End the session, where there is one, and the connections."""
        if "Mcp-Session-Id" in self._headers:
            with contextlib.suppress(TryAgain, Unreachable):  # it is gone already
                await self._http.delete(self._path, _GOODBYE_SECONDS, headers=self._headers)
        await self._http.close()

    async def _post(self, message: dict[str, Any]) -> HttpReply:
        try:
            reply = await self._http.post_json(
                self._path, orjson.dumps(message), self._timeout_seconds, headers=self._headers
            )
        except (TryAgain, Unreachable) as error:
            raise InfrastructureError(f"The MCP server {self.name} cannot be reached: {error}") from None
        if reply.status >= 500 or (reply.status == 404 and "Mcp-Session-Id" in self._headers):
            raise InfrastructureError(f"The MCP server {self.name} answered {reply.status}: {reply.body[:200]!r}")
        return reply


def _messages(reply: HttpReply) -> list[dict[str, Any]]:
    if reply.headers.get("content-type", "").startswith("text/event-stream"):
        texts = [
            "\n".join(line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:"))
            for event in reply.body.decode("utf-8", "replace").replace("\r\n", "\n").split("\n\n")
        ]
    else:
        texts = [reply.body.decode("utf-8", "replace")]
    found = []
    for text in texts:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _is_refusal(message: dict[str, Any]) -> bool:
    """An error without an id answers a request that the server could not even read."""
    return message.get("id") is None and "error" in message
