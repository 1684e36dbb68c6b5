"""An MCP server with one tool, of the official SDK."""

from pathlib import Path

from mcp.server import MCPServer

server = MCPServer("notes", log_level="ERROR")


@server.tool()
def write_note(name: str, text: str) -> str:
    """Write a note to a file."""
    Path(name).write_text(text, encoding="utf-8")
    return "Written."


server.run("stdio")
