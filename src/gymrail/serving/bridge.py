"""MCP on stdin and stdout, passed on to an episode's URL: for programs that start their MCP servers.

The process holds the URL and nothing else, so an agent that reads its memory learns what it knows already. Standard
library only, because every episode starts one.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any
from urllib.parse import urlsplit

from gymrail.errors import InputError

_CALLS_AT_ONCE = 16
_SECONDS = 3600.0
"""A tool may take long; the server has limits of its own."""
_VERSION = "io.modelcontextprotocol/protocolVersion"
_INTERNAL_ERROR = -32603


def bridge(url: str, lines: Iterable[str], output: IO[str]) -> None:
    """Pass messages on until `lines` end and every call has its answer.

    Raises:
        InputError: `url` is none.
    """
    target = urlsplit(url)
    if target.scheme not in ("http", "https") or not target.hostname:
        raise InputError(f"{url!r} is no URL of an episode; it looks like http://HOST:PORT/e/TOKEN/mcp.")
    link = _Link(url, output)
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as calls:
        for line in lines:
            message = _parse(line)
            if message is None:
                continue
            if message.get("method") == "initialize":  # what follows needs the version that it agrees on
                link.forward(message)
            else:
                calls.submit(link.forward, message)


class _Link:
    def __init__(self, url: str, output: IO[str]) -> None:
        target = urlsplit(url)
        assert target.hostname is not None
        self.kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        self.host, self.port = target.hostname, target.port
        self.path = target.path + (f"?{target.query}" if target.query else "")
        self.output = output
        self.version: str | None = None
        self.lock = threading.Lock()

    def forward(self, message: dict[str, Any]) -> None:
        """Post one message and write what comes back; a request is always answered."""
        connection = self.kind(self.host, self.port, timeout=_SECONDS)
        try:
            body = json.dumps(message).encode()
            connection.request("POST", self.path, body, self._headers(message))
            is_answered = False
            for answer in _answers(connection.getresponse()):
                is_answered = is_answered or "method" not in answer
                self._note_version(message, answer)
                self._write(answer)
            problem = "The server sent no answer."
        except (OSError, http.client.HTTPException) as error:
            is_answered, problem = False, f"The server cannot be reached: {type(error).__name__}."
        except _Refused as error:
            is_answered, problem = False, str(error)
        finally:
            connection.close()
        if not is_answered and "id" in message and "method" in message:
            self._write({"jsonrpc": "2.0", "id": message["id"], "error": {"code": _INTERNAL_ERROR, "message": problem}})

    def _headers(self, message: dict[str, Any]) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        parameters = message.get("params")
        parameters = parameters if isinstance(parameters, dict) else {}
        version = (parameters.get("_meta") or {}).get(_VERSION)
        if version is not None:  # the revision without a handshake says in headers what the body says
            headers["mcp-method"] = str(message.get("method", ""))
            name = parameters.get("name") or parameters.get("uri")
            if isinstance(name, str):
                headers["mcp-name"] = name
        version = version or self.version
        if version is not None:
            headers["mcp-protocol-version"] = str(version)
        return {name: value.encode("utf-8").decode("latin-1") for name, value in headers.items()}

    def _note_version(self, message: dict[str, Any], answer: dict[str, Any]) -> None:
        result = answer.get("result")
        if message.get("method") == "initialize" and isinstance(result, dict):
            self.version = result.get("protocolVersion")

    def _write(self, message: dict[str, Any]) -> None:
        with self.lock:
            self.output.write(json.dumps(message, separators=(",", ":")) + "\n")
            self.output.flush()


class _Refused(Exception):
    """The server did not take the message."""


def _answers(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    if (response.getheader("content-type") or "").startswith("text/event-stream"):
        for line in response:
            if line.startswith(b"data:") and (message := _parse(line[5:].decode("utf-8", "replace"))) is not None:
                yield message
        return
    message = _parse(response.read().decode("utf-8", "replace"))
    if message is not None and "jsonrpc" in message:
        yield message
    elif response.status >= 400:
        error = message.get("error") if message else None
        raise _Refused(str(error.get("message")) if isinstance(error, dict) else f"HTTP {response.status}")


def _parse(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
