"""One living sandbox: a process shut off by a provider, and the messages to and from the program inside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Self

from gymrail.errors import InfrastructureError
from gymrail.sandbox.limits import Execution, Limits, Stop
from gymrail.sandbox.priority import Priority
from gymrail.sandbox.provider import Launch, Provider
from gymrail.sandbox.watch import Watch

START_SECONDS = 60.0
"""A start takes a fiftieth of a second; on a machine that is overwhelmed, much longer."""
GRACE_SECONDS = 1.0
"""What code has to stop in after its wall time, before all of it is killed."""
_END_SECONDS = 10.0
_PARTS = 6
_LOST = "killed: "


class Box:
    """A sandbox that runs; close it. One request at a time."""

    def __init__(self, provider: Provider, limits: Limits, watch: Watch) -> None:
        self.provider = provider
        self.limits = limits
        self.is_alive = False
        self._watch = watch
        self._priority = Priority()
        self._launch: Launch
        self._process: subprocess.Popen[bytes]
        self._socket: socket.socket
        self._was_killed = False
        self._is_at_end = False
        """The other end hung up: what was there is gone, or on its way."""

    @classmethod
    async def start(cls, provider: Provider, limits: Limits, watch: Watch) -> Self:
        """Start a sandbox and wait until it takes requests.

        Raises:
            InfrastructureError: it did not start.
        """
        box = cls(provider, limits, watch)
        box._launch = provider.launch(limits)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        box._socket = ours
        with tempfile.TemporaryFile() as complaints:
            try:
                # Starting takes a millisecond or two; asyncio would keep a thread waiting for each end (Python 3.11).
                box._process = subprocess.Popen(  # noqa: ASYNC220
                    box._launch.command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=complaints, cwd="/",
                    env=dict(box._launch.environment), pass_fds=box._launch.inherited, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                ours.close()
                raise InfrastructureError(f"The sandbox {provider.name!r} did not start: {error}.") from error
            finally:
                theirs.close()
                for descriptor in box._launch.inherited:
                    os.close(descriptor)
            box.is_alive = True
            try:
                async with asyncio.timeout(START_SECONDS):
                    ready = await box._receive(0)
            except TimeoutError:
                ready = None
            except asyncio.CancelledError:
                await box.close()
                raise
            if ready is None:
                await box.close()
                complaints.seek(0)
                said = complaints.read(4096).decode("utf-8", "replace").strip() or "it said nothing"
                raise InfrastructureError(f"The sandbox {provider.name!r} did not start: {said}")
        return box

    async def ask(self, *request: bytes) -> Execution:
        """Send a request and wait for what became of it, for as long as the limits allow; after a loss `is_alive` is
        False.

        Raises:
            InfrastructureError: the sandbox was lost, and it was not the code's doing.
        """
        started = time.monotonic()
        cause: Stop | None = None
        parts: list[bytes] | None = None
        limit = asyncio.timeout(self.limits.wall_seconds + GRACE_SECONDS)
        try:
            async with limit:
                with self._watch.over(self._process.pid, self.limits, self._priority, self._kill) as watched:
                    if await self._send(request):
                        parts = await self._receive(_PARTS)
            cause = watched.cause
        except TimeoutError:
            if not limit.expired():
                raise
            cause = "timeout"
        except asyncio.CancelledError:
            await self.close()
            raise
        seconds = time.monotonic() - started
        if parts is None:
            return await self._lost(cause, seconds)
        return _execution(parts, self.limits, seconds)

    async def close(self) -> None:
        """Kill everything inside and give back what the sandbox holds; safe to call again."""
        if not self.is_alive:
            return
        self.is_alive = False
        self._kill()
        self._socket.close()
        command = self._launch.kill_command
        ender = None
        if command is not None:
            ender = subprocess.Popen(  # noqa: ASYNC220
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=dict(self._launch.environment),
            )  # fmt: skip
        for process in (self._process, ender):
            if process is not None and not await _ended(process):
                raise InfrastructureError(f"The sandbox {self.provider.name!r} did not end (process {process.pid}).")
        if self._launch.folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._launch.folder, ignore_errors=True)

    def _kill(self) -> None:
        self._was_killed = True
        if self._process.returncode is None:
            # The command leads a group of its own, which an unsafe child shares with what it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _lost(self, cause: Stop | None, seconds: float) -> Execution:
        """Tell the code's own doing from a loss that came from outside, and clear up."""
        by_us = self._was_killed or cause is not None
        if self._is_at_end and not by_us:
            await _ended(self._process)
        code = self._process.poll()
        await self.close()
        # Nothing inside can signal what is outside; the command itself passes an inner death on as an exit code.
        if not by_us and self.provider.has_own_processes and code is not None and code < 0:
            raise InfrastructureError(f"The sandbox {self.provider.name!r} was killed from outside (signal {-code}).")
        stopped = cause or "killed"
        return Execution(
            error=_LOST + explain(stopped, self.limits), stopped=stopped, is_restarted=True, seconds=seconds
        )

    async def _send(self, request: tuple[bytes, ...]) -> bool:
        pieces = [len(request).to_bytes(4, "big")]
        for part in request:
            pieces += [len(part).to_bytes(4, "big"), part]
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, b"".join(pieces))
        except (BrokenPipeError, ConnectionResetError):
            self._is_at_end = True
            return False
        return True

    async def _receive(self, count: int) -> list[bytes] | None:
        """Read one message of so many parts; None where the sandbox is gone, or says anything else."""
        if await self._read(4) != count.to_bytes(4, "big"):
            return None
        parts = []
        for _ in range(count):
            size = await self._read(4)
            if size is None or int.from_bytes(size, "big") > self.limits.output_bytes + 1:
                return None
            part = await self._read(int.from_bytes(size, "big"))
            if part is None:
                return None
            parts.append(part)
        return parts

    async def _read(self, size: int) -> bytes | None:
        loop = asyncio.get_running_loop()
        pieces = bytearray()
        while len(pieces) < size:
            try:
                piece = await loop.sock_recv(self._socket, size - len(pieces))
            except ConnectionResetError:
                piece = b""
            if not piece:
                self._is_at_end = True
                return None
            pieces += piece
        return bytes(pieces)


def explain(stopped: Stop, limits: Limits) -> str:
    """Say to a model why its code was stopped."""
    reasons: dict[Stop, str] = {
        "timeout": f"the code ran longer than {limits.wall_seconds:g} seconds",
        "cpu": f"the code used more than {limits.cpu_seconds:g} seconds of processor time",
        "memory": f"the code used more than {limits.memory_bytes // 1024**2} MiB of memory",
        "output": f"the code wrote more than {limits.output_bytes} bytes",
        "killed": "the process of the code ended",
    }
    return reasons[stopped]


def _execution(parts: list[bytes], limits: Limits, seconds: float) -> Execution:
    stdout, stderr, value, error = (_text(part, limits.output_bytes) for part in parts[:4])
    found = parts[4].decode("ascii", "replace")
    stopped: Stop | None = next(
        (stop for stop in ("timeout", "cpu", "memory", "output", "killed") if stop == found), None
    )
    if (stopped is None and len(parts[0]) > limits.output_bytes) or len(parts[1]) > limits.output_bytes:
        stopped = stopped or "output"
    if stopped is not None and stopped != "output":
        error = f"stopped: {explain(stopped, limits)}" + (f"\n{error}" if error else "")
    code = int(parts[5]) if parts[5].lstrip(b"-").isdigit() and len(parts[5]) < 5 else None
    return Execution(stdout, stderr, value or None, error or None, stopped, code, False, seconds)


def _text(data: bytes, limit: int) -> str:
    text = data[:limit].decode("utf-8", "replace")
    return text if len(data) <= limit else f"{text}\n... (cut off after {limit} bytes)"


async def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Wait for a process that is dying. It takes a millisecond or two, so no watcher is worth its while."""
    deadline = time.monotonic() + _END_SECONDS
    pause = 0.0005
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True
