"""A plain `tools/call` over HTTP, read and answered without the SDK's layers around it, which cost more than the call.

Only a request is taken that those layers would let through as it is: one of the newer revisions, one JSON-RPC request,
headers that agree with the body, a tool that the environment has. Everything else is the SDK's, so that it alone says
what is wrong with a request. Both answer alike.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import mcp_types as types
import orjson
from mcp.shared.exceptions import MCPError
from mcp_types.methods import validate_client_request
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.types import Send

from gymrail.serving.auth import CALL_ID_HEADER
from gymrail.tools import dump_json

CALL_ID_KEY = "gymrail/callId"
"""In a request's `_meta`: a call with a known id is not done twice."""

_MODERN = "2026-07-28"
_VERSIONS = {b"2025-06-18": "2025-06-18", b"2025-11-25": "2025-11-25", _MODERN.encode(): _MODERN}
"""Those that write a tool's result alike; older ones know no structured content."""
_CONTENT_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
_ACCEPTED = frozenset(
    {
        b"application/json, text/event-stream",
        b"application/json,text/event-stream",
        b"text/event-stream, application/json",
        b"application/json",
        b"*/*",
    }
)
_READ = frozenset({b"content-type", b"accept", b"mcp-protocol-version", b"mcp-method", b"mcp-name", CALL_ID_HEADER})
_OF_A_REQUEST = frozenset({"jsonrpc", "id", "method", "params"})
_BAD_REQUESTS = frozenset({types.INVALID_REQUEST, types.INVALID_PARAMS})
_JSON = (b"content-type", b"application/json")


class PlainCall(NamedTuple):
    """A tool call as it was sent."""

    id: int | str
    version: str
    name: str
    arguments: dict[str, Any]
    call_id: str | None


def read_plain_call(headers: list[tuple[bytes, bytes]], body: bytes, names: Collection[str]) -> PlainCall | None:
    """Return the call that a request is, or None for a request that is the SDK's to answer.

    Args:
        names: tools of which no argument belongs in a header.
    """
    found = _headers(headers)
    if found is None or found.get(b"content-type") not in _CONTENT_TYPES or found.get(b"accept") not in _ACCEPTED:
        return None
    version = _VERSIONS.get(found.get(b"mcp-protocol-version", b""))
    message = _request(body)
    if version is None or message is None:
        return None
    id, params = message["id"], message["params"]
    name = params.get("name")
    meta = params.get("_meta") or {}
    if type(id) not in (int, str) or not isinstance(name, str) or name not in names or not isinstance(meta, dict):
        return None
    if version == _MODERN and not _agrees(found, name, meta):
        return None
    try:
        validate_client_request("tools/call", version, params)
    except ValidationError:
        return None
    call_id = meta.get(CALL_ID_KEY)
    if not isinstance(call_id, str) or not call_id:
        call_id = found.get(CALL_ID_HEADER, b"").decode("latin-1").strip() or None
    return PlainCall(id, version, name, params.get("arguments") or {}, call_id)


async def answer_plain_call(
    call: PlainCall, result: types.CallToolResult | MCPError, server: dict[str, Any], send: Send
) -> None:
    """Write what became of a call, as the SDK writes it.

    Args:
        server: the stamp that the newest revision's results carry in their metadata.
    """
    status = 200
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": call.id}
    is_modern = call.version == _MODERN
    if isinstance(result, MCPError):
        message["error"] = result.error.model_dump(mode="json", exclude_none=True)
        if is_modern and result.error.code in _BAD_REQUESTS:
            status = 400
    else:
        written = message["result"] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        if is_modern:
            written["resultType"] = "complete"
            written["_meta"] = {**written.get("_meta", {}), types.SERVER_INFO_META_KEY: server}
        else:
            written.pop("resultType", None)
    body = _dump(message)
    headers = [_JSON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """Those that are looked at here; None where one comes twice, or one is of those that the SDK looks at besides."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name in found:
                return None
            found[name] = value
        elif name.startswith(b"mcp-"):
            return None
    return found


def _request(body: bytes) -> dict[str, Any] | None:
    try:
        message = from_json(body)  # unlike orjson, it keeps integers of any size
    except ValueError:
        return None
    if not isinstance(message, dict) or message.keys() != _OF_A_REQUEST or message["jsonrpc"] != "2.0":
        return None
    return message if message["method"] == "tools/call" and isinstance(message["params"], dict) else None


def _agrees(found: dict[bytes, bytes], name: str, meta: dict[str, Any]) -> bool:
    """Whether the headers say what the body says, and the body what the revision wants to know of every request."""
    return (
        found.get(b"mcp-method") == b"tools/call"
        and found.get(b"mcp-name") == name.encode()
        and meta.get(types.PROTOCOL_VERSION_META_KEY) == _MODERN
        and types.CLIENT_CAPABILITIES_META_KEY in meta
    )


def _dump(message: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(message)
    except TypeError:  # integers beyond 64 bits
        return dump_json(message).encode()
