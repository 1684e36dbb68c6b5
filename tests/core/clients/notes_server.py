"""A real MCP server of the official SDK: notes in a file of its working directory, over stdio or HTTP."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ImageContent, TextContent, ToolAnnotations

server = MCPServer("notes", version="1.0", log_level="ERROR")
NOTES = Path("notes.txt")


@server.tool(annotations=ToolAnnotations(destructive_hint=False))
def add_note(text: str) -> str:
    """Write a note."""
    if not text:
        raise ToolError("A note has words.")
    with NOTES.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    return "Noted."


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def read_notes() -> str:
    """Read all notes."""
    return NOTES.read_text(encoding="utf-8") if NOTES.exists() else "none"


@server.tool()
def variables() -> str:
    """List the environment variables."""
    return " ".join(sorted(os.environ))


@server.tool()
def picture(words: str) -> list[TextContent | ImageContent]:
    """Draw."""
    return [
        TextContent(type="text", text=words),
        ImageContent(type="image", data="iVBORw0KGgo=", mime_type="image/png"),
    ]


@server.tool()
def talk(length: int) -> str:
    """Talk on and on."""
    return "x" * length


@server.tool()
def wait() -> str:
    """Never come back."""
    import time

    time.sleep(3600)
    return ""


@server.tool()
def die() -> str:
    """Crash the process."""
    print("the disk is full", file=sys.stderr, flush=True)
    os._exit(7)


@server.tool()
def spawn() -> int:
    """Start a child that outlives its parent."""
    return subprocess.Popen(["sleep", "3600"]).pid


if __name__ == "__main__":
    if len(sys.argv) > 1:
        import uvicorn

        app = server.streamable_http_app(json_response=len(sys.argv) > 2)
        uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_keep_alive=600)).run(
            [socket.socket(fileno=int(sys.argv[1]))]
        )
    else:
        server.run("stdio")
