"""The requests of `serving.py`, as they go over the wire: the tool of `session_counter` over HTTP and MCP."""

from __future__ import annotations

import json
from typing import Any

TOOL = "increment_counter"
MODERN, LEGACY = "2026-07-28", "2025-11-25"
ACCEPT = "application/json, text/event-stream"


def post(path: str, body: Any, **headers: str) -> str:
    """A request with a JSON body; `_` in a header's name is `-`."""
    text = json.dumps(body, separators=(",", ":"))
    lines = [
        f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", f"content-length: {len(text)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]  # fmt: skip
    return "\r\n".join(lines) + "\r\n\r\n" + text


def call(is_modern: bool) -> dict[str, Any]:
    """The tool call as JSON-RPC."""
    params: dict[str, Any] = {"name": TOOL, "arguments": {"count": 1}}
    if is_modern:
        prefix = "io.modelcontextprotocol/"
        params["_meta"] = {
            f"{prefix}protocolVersion": MODERN,
            f"{prefix}clientCapabilities": {},
            f"{prefix}clientInfo": {"name": "load", "version": "1"},
        }
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def modern(path: str, accept: str = ACCEPT) -> str:
    """The call in the revision without sessions."""
    headers = {"accept": accept, "mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": TOOL}
    return post(path, call(True), **headers)


def legacy(path: str, accept: str = ACCEPT) -> str:
    """The call in the last revision with a handshake, which a stateless server does not need."""
    return post(path, call(False), accept=accept, mcp_protocol_version=LEGACY)
