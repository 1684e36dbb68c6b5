"""Any MCP server as a tool server of an environment: a fresh process, or a fresh session behind a URL, per episode.

    class Files(MCPToolServer):
        command = ("npx", "--no-install", "mcp-server-filesystem", "{episode_dir}")
        inherit = ("HOME",)
        allow = ("read_text_file", "write_file")

    class Tidy(Environment[TidyTask]):
        files: Files

        async def seed(self) -> None:
            await self.files.seed(files=self.task.files)

        def verify(self, rollout: Rollout) -> float:
            return float((self.files.directory / "done.txt").exists())

Verifiers read `directory`, never ask the server: what it says is what the agent heard.

Covers: own directory, scrubbed environment variables, a process group that is killed on close, tool filters, limits on
time and output, pictures.
Does not cover: a sandbox. The process runs as this user, with this user's network and files; for untrusted servers let
`command` start a container. Prompts and resources of the server, and changes of its tool list.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import orjson

from gymrail.clients.foreign_tool import foreign_tool
from gymrail.clients.mcp_http import HttpConnection
from gymrail.clients.mcp_rpc import INVALID_PARAMS, Connection, MCPError, handshake, list_tools
from gymrail.clients.mcp_stdio import StdioConnection
from gymrail.environment import ToolServer
from gymrail.errors import GymrailError, InfrastructureError, InputError, ToolError, did_you_mean
from gymrail.tools import Image, ToolOptions, ToolSpec, printable

_ALWAYS_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ")
_FILES_NAME = "{episode_dir}"


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is reached; equal launches have equal tools."""

    command: tuple[str, ...]
    url: str
    variables: tuple[tuple[str, str], ...]
    inherit: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    start_seconds: float
    request_seconds: float

    async def connect(self, directory: Path) -> Connection:
        """Start or reach the server and shake hands.

        Raises:
            InfrastructureError: it does not come up, or is gone at once.
            InputError: there is no such program.
        """
        try:
            async with asyncio.timeout(self.start_seconds):
                connection = await self._open(directory)
                try:
                    await handshake(connection)
                except (asyncio.CancelledError, GymrailError):  # a timeout arrives as a cancellation
                    await connection.close()
                    raise
        except TimeoutError:
            raise InfrastructureError(
                f"The MCP server {self} did not answer within {self.start_seconds:g} seconds of its start."
            ) from None
        return connection

    def __str__(self) -> str:
        return " ".join(self.command) if self.command else self.url

    async def _open(self, directory: Path) -> Connection:
        if self.url:
            return HttpConnection(self.url, dict(self.headers), self.request_seconds)
        place = str(directory)
        command = [word.replace(_FILES_NAME, place) for word in self.command]
        # A server that writes to its home or its temporary files writes into the episode.
        variables = {"HOME": place, "TMPDIR": place}
        for name in (*_ALWAYS_INHERITED, *self.inherit):
            if name in os.environ:
                variables[name] = os.environ[name]
        variables.update((name, value.replace(_FILES_NAME, place)) for name, value in self.variables)
        return await StdioConnection.start(command, directory, variables)


class MCPToolServer(ToolServer):
    """Subclass it and say how the server is reached: `command` or `url`. Its tools are read once per process, when an
    environment that composes it is loaded; a subclass may add Python tools with `@tool`."""

    command: ClassVar[Sequence[str]] = ()
    """Program and arguments; `{episode_dir}` stands for the episode's own directory, which is also the working
    directory."""
    url: ClassVar[str] = ""
    """A server over HTTP instead; its session is the episode's, and is all the isolation there is."""
    variables: ClassVar[Mapping[str, str]] = {}
    """Environment variables of the process, `{episode_dir}` filled in; of ours it gets PATH and the language alone."""
    inherit: ClassVar[Sequence[str]] = ()
    """More of our variables that it may see."""
    headers: ClassVar[Mapping[str, str]] = {}
    """Sent with every request to `url`."""
    allow: ClassVar[Sequence[str] | None] = None
    """The server's tools that are offered; all by default."""
    deny: ClassVar[Sequence[str]] = ()
    rename: ClassVar[Mapping[str, str]] = {}
    """The server's name of a tool -> the name that the model sees."""
    timeouts: ClassVar[Mapping[str, float]] = {}
    """Seconds that a tool may take, by the server's name; the episode's limit per call otherwise."""
    start_seconds: ClassVar[float] = 60.0
    request_seconds: ClassVar[float] = 120.0
    """The longest answer over `url`."""
    max_output_characters: ClassVar[int] = 100_000
    """What is longer is cut, and the model is told."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if bool(cls.command) == bool(cls.url):
            raise InputError(f"{cls.__qualname__} must say how its server is reached: by `command` or by `url`.")
        if isinstance(cls.command, str):
            raise InputError(f"{cls.__qualname__}.command is {cls.command!r}; write it as a list of words.")
        cls.tools = _ToolsOnDemand(cls.tools)  # pyright: ignore[reportAttributeAccessIssue] - a descriptor

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._connection: Connection | None = None
        self._starting: asyncio.Lock | None = None
        self._is_closed = False

    @property
    def directory(self) -> Path:
        """The episode's own directory; made on first use and removed at the end."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="gymrail-"))
        return self._directory

    async def seed(self, files: Mapping[str, str] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Write files (relative path -> text) into the directory, and start the server; without a call of this it
        starts at the first tool call."""
        root = self.directory.resolve()
        for name, text in (files or {}).items():
            path = (root / name).resolve()
            if not path.is_relative_to(root):
                raise InputError(f"The file {name!r} lies outside the episode's directory; give a relative path.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        await self._connected()

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Call a tool by the server's own name of it.

        Raises:
            ToolError: the server says so, or does not take the arguments.
            InfrastructureError: the server is gone.
        """
        connection = await self._connected()
        try:
            result = await connection.request("tools/call", {"name": tool, "arguments": arguments})
        except MCPError as error:
            if error.code == INVALID_PARAMS:
                raise ToolError(error.message) from None
            raise
        output = read_content(result, self.max_output_characters)
        if result.get("isError"):
            raise ToolError(output if isinstance(output, str) else "The tool failed.")
        return output

    async def close(self) -> None:
        self._is_closed = True
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                await connection.close()
        finally:
            if self._directory is not None:
                await asyncio.to_thread(shutil.rmtree, self._directory, True)

    async def _connected(self) -> Connection:
        if self._connection is None:
            self._starting = self._starting or asyncio.Lock()
            async with self._starting:
                if self._connection is None:
                    if self._is_closed:
                        raise InfrastructureError("The MCP server was closed with its episode.")
                    self._connection = await launch_of(type(self)).connect(self.directory)
        return self._connection


def mcp_tool_server(name: str, **settings: Any) -> type[MCPToolServer]:
    """Make a tool server without writing a class; `settings` are `MCPToolServer`'s class attributes.

    Raises:
        InputError: there is no such setting, or neither or both of `command` and `url`.
    """
    allowed = [key for key in MCPToolServer.__annotations__ if not key.startswith("_")]
    for key in settings:
        if key not in allowed:
            raise InputError(f"MCPToolServer has no setting {key!r}. {did_you_mean(key, allowed)}")
    return type(name, (MCPToolServer,), settings)


def launch_of(server: type[MCPToolServer]) -> Launch:
    """Return how a class's server is reached."""
    return Launch(
        tuple(server.command),
        server.url,
        tuple(sorted(server.variables.items())),
        tuple(server.inherit),
        tuple(sorted(server.headers.items())),
        server.start_seconds,
        server.request_seconds,
    )


def read_content(result: Mapping[str, Any], max_characters: int) -> str | list[str | Image]:
    """Return what the model reads of a `tools/call` result: text, or texts and pictures in order; structured content
    where there is nothing else."""
    parts: list[str | Image] = []
    left = max_characters
    for block in result.get("content") or ():
        part = _read_block(block)
        size = len(part.data) if isinstance(part, Image) else len(part)
        if isinstance(part, Image):
            parts.append(part if size <= 20 * max_characters else f"[a picture of {size} bytes was left out]")
            continue
        parts.append(part if size <= left else f"{part[:left]}\n[cut: {size - left} more characters]")
        left = max(0, left - size)
    if not parts and result.get("structuredContent") is not None:
        text = orjson.dumps(result["structuredContent"]).decode()
        parts = [text if len(text) <= left else f"{text[:left]}\n[cut: {len(text) - left} more characters]"]
    if any(isinstance(part, Image) for part in parts):
        return parts
    return "\n".join(part for part in parts if isinstance(part, str))


def _read_block(block: Any) -> str | Image:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text":
        return printable(str(block.get("text", "")))
    if kind == "image":
        try:
            return Image(base64.b64decode(block.get("data", ""), validate=True), block.get("mimeType", "image/png"))
        except (binascii.Error, ValueError):
            return "[a picture that is no base64 was left out]"
    if kind == "resource":
        resource = block.get("resource") or {}
        return printable(str(resource.get("text", f"[binary resource {resource.get('uri', '')}]")))
    if kind == "resource_link":
        return f"{block.get('name', 'resource')}: {block.get('uri', '')}"
    return f"[content of type {kind!r} was left out]"


class _ToolsOnDemand:
    """The class attribute `tools`: reads the server's list when somebody asks for it, not when the class is defined."""

    def __init__(self, own: dict[str, ToolSpec]) -> None:
        self.own = own
        self.table: dict[str, ToolSpec] | None = None

    def __get__(self, instance: object, owner: type[MCPToolServer]) -> dict[str, ToolSpec]:
        if self.table is None:
            self.table = self.own | _table(owner, self.own)
        return self.table


def _table(server: type[MCPToolServer], own: Mapping[str, ToolSpec]) -> dict[str, ToolSpec]:
    found = {tool["name"]: tool for tool in _read_tools(launch_of(server))}
    for place, names in (("allow", server.allow or ()), ("deny", server.deny), ("rename", server.rename),
                         ("timeouts", server.timeouts)):  # fmt: skip
        for name in names:
            if name not in found:
                raise InputError(
                    f"{server.__qualname__}.{place} names {name!r}, which its server does not have. "
                    f"{did_you_mean(name, found)}"
                )
    table: dict[str, ToolSpec] = {}
    for foreign_name, tool in found.items():
        if foreign_name in server.deny or (server.allow is not None and foreign_name not in server.allow):
            continue
        name = server.rename.get(foreign_name, foreign_name)
        if name in table or name in own:
            raise InputError(f"{server.__qualname__} has the tool {name!r} twice; change one by `rename`.")
        hints = tool.get("annotations") or {}
        options = ToolOptions(
            timeout_seconds=server.timeouts.get(foreign_name),
            read_only=bool(hints.get("readOnlyHint")),
            destructive=bool(hints.get("destructiveHint")),
            idempotent=bool(hints.get("idempotentHint")),
        )
        description = str(tool.get("description") or tool.get("title") or "")
        schema = {key: value for key, value in (tool.get("inputSchema") or {}).items() if key != "$schema"}
        schema.setdefault("properties", {})
        table[name] = foreign_tool(name, description, schema, options=options, foreign_name=foreign_name)
    return table


@functools.cache
def _read_tools(launch: Launch) -> list[dict[str, Any]]:
    """Ask a server for its tools, once per process and launch."""
    found: list[dict[str, Any]] = []
    failure: list[GymrailError] = []

    async def read() -> None:
        directory = Path(tempfile.mkdtemp(prefix="gymrail-"))
        try:
            connection = await launch.connect(directory)
            try:
                async with asyncio.timeout(launch.start_seconds):
                    found.extend(await list_tools(connection))
            finally:
                await connection.close()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def run() -> None:
        try:
            asyncio.run(read())
        except TimeoutError:
            failure.append(InputError(f"The MCP server {launch} did not list its tools in {launch.start_seconds:g} s."))
        except GymrailError as error:
            failure.append(error if isinstance(error, InputError) else InputError(str(error)))

    # The caller may be inside an event loop already; this is a wait at loading time, not in an episode.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return found
