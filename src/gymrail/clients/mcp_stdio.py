"""An MCP server as a child process: one JSON message per line over its stdin and stdout.

Covers: calls at once, the server's own requests and notifications, a process group of its own that is killed on close,
the end of its stderr in every error.
Does not cover: children that leave the process group; limits on memory and network.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from gymrail.clients.mcp_rpc import answer_to, result_of
from gymrail.errors import InfrastructureError, InputError

_MAX_LINE_BYTES = 32 * 1024 * 1024
_STDERR_BYTES = 2000
_EXIT_SECONDS = 5.0


class StdioConnection:
    """A running server process. Make one with `StdioConnection.start`; it belongs to the event loop that started it."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self.process = process
        self.name = name
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self._stderr = b""
        self._gone: str | None = None
        self._readers = [asyncio.create_task(self._read()), asyncio.create_task(self._read_stderr())]

    @classmethod
    async def start(cls, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> StdioConnection:
        """Start the process, in `directory`, with these environment variables and no others.

        Raises:
            InputError: there is no such program.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=directory,
                env=dict(environment),
                limit=_MAX_LINE_BYTES,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise InputError(
                f"The MCP server {shlex.join(command)!r} cannot be started ({error.strerror}: {error.filename!r}); "
                "install it, or give the program's whole path."
            ) from None
        return cls(process, shlex.join(command))

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._last_id += 1
        key = self._last_id
        future = self._waiting[key] = asyncio.get_running_loop().create_future()
        try:
            await self._send({"jsonrpc": "2.0", "id": key, "method": method, "params": params})
            return result_of(await future, self.name)
        finally:
            self._waiting.pop(key, None)

    async def notify(self, method: str) -> None:
        await self._send({"jsonrpc": "2.0", "method": method})

    async def close(self) -> None:
        """Kill the process with all its group and wait for its end; safe to call again."""
        self._gone = self._gone or "it was closed"
        if self.process.stdin is not None:
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is the process's id
            os.killpg(self.process.pid, signal.SIGKILL)
        await asyncio.wait([asyncio.ensure_future(self.process.wait())], timeout=_EXIT_SECONDS)
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        # asyncio closes the transport only once every pipe is at its end, and a grandchild may still hold one.
        transport = getattr(self.process, "_transport", None)
        if transport is not None:
            transport.close()

    async def _send(self, message: dict[str, Any]) -> None:
        stdin = self.process.stdin
        assert stdin is not None
        if self._gone is not None:
            raise self._lost()
        try:
            stdin.write(orjson.dumps(message) + b"\n")
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            await self._end("it no longer reads")
            raise self._lost() from None

    async def _read(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        reason = ""
        try:
            while line := await stdout.readline():
                await self._take(line)
        except (ValueError, asyncio.LimitOverrunError):
            reason = f"it wrote a line of more than {_MAX_LINE_BYTES} bytes"
        except InfrastructureError as error:  # our answer to its request could not be written
            reason = str(error)
        await self._end(reason)

    async def _take(self, line: bytes) -> None:
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError:
            return  # many servers print a banner
        if not isinstance(message, dict):
            return
        if "method" in message:
            answer = answer_to(message)
            if answer is not None:
                await self._send(answer)
            return
        key = message.get("id")
        future = self._waiting.get(key) if isinstance(key, int) else None
        if future is not None and not future.done():
            future.set_result(message)

    async def _read_stderr(self) -> None:
        stderr = self.process.stderr
        assert stderr is not None
        while chunk := await stderr.read(4096):
            self._stderr = (self._stderr + chunk)[-_STDERR_BYTES:]

    async def _end(self, reason: str) -> None:
        """The server is gone: everybody who waits for it hears so."""
        if self._gone is None:
            # Its last words arrive on the other pipe, a moment later.
            await asyncio.wait([self._readers[1], asyncio.ensure_future(self.process.wait())], timeout=0.5)
            code = self.process.returncode
            self._gone = reason or (f"it ended with exit code {code}" if code is not None else "it closed its output")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._lost())

    def _lost(self) -> InfrastructureError:
        said = self._stderr.decode("utf-8", "replace").strip()
        more = f"; its last words: {said}" if said else ""
        return InfrastructureError(f"The MCP server {self.name!r} is gone: {self._gone}{more}")
