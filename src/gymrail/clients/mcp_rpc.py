"""JSON-RPC as MCP has it: what both transports of the client share. Only what tools need; no SDK."""

from __future__ import annotations

from typing import Any, Protocol

from gymrail.errors import GymrailError

PROTOCOL_VERSION = "2025-11-25"
"""Of the revisions with a handshake the newest; servers of later revisions still take it."""
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
_MAX_PAGES = 1000


class MCPError(GymrailError):
    """The server answered with a JSON-RPC error."""

    def __init__(self, server: str, code: int, message: str) -> None:
        super().__init__(f"The MCP server {server} answered with error {code}: {message}")
        self.code = code
        self.message = message


class Connection(Protocol):
    """A live session with a server."""

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Ask and wait for the result.

        Raises:
            MCPError: the server refuses.
            InfrastructureError: it is gone, or answers what is no JSON-RPC.
        """
        ...

    async def notify(self, method: str) -> None: ...

    async def close(self) -> None: ...


async def handshake(connection: Connection) -> dict[str, Any]:
    """Open the session and return what the server says of itself. No capability is declared, so the server has nothing
    to ask us."""
    client = {"name": "gymrail", "version": "0"}
    params = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": client}
    about = await connection.request("initialize", params)
    await connection.notify("notifications/initialized")
    return about


async def list_tools(connection: Connection) -> list[dict[str, Any]]:
    """Return the server's tools, all pages."""
    tools: list[dict[str, Any]] = []
    cursor: Any = None
    for _ in range(_MAX_PAGES):
        page = await connection.request("tools/list", {} if cursor is None else {"cursor": cursor})
        tools += page.get("tools") or ()
        cursor = page.get("nextCursor")
        if not cursor:
            break
    return tools


def answer_to(message: dict[str, Any]) -> dict[str, Any] | None:
    """Return our answer to a server's request: a ping is answered, anything else does not exist here. None for a
    notification, which needs no answer."""
    if "id" not in message:
        return None
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    if message.get("method") == "ping":
        return answer | {"result": {}}
    return answer | {"error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}


def result_of(message: dict[str, Any], server: str) -> dict[str, Any]:
    """Return a response's result.

    Raises:
        MCPError: it is an error.
    """
    error = message.get("error")
    if isinstance(error, dict):
        raise MCPError(server, int(error.get("code", 0)), str(error.get("message", "no message")))
    result = message.get("result")
    return result if isinstance(result, dict) else {}
