"""Workers that are processes of this machine: a fresh interpreter each, and one socket to talk over.

A worker is the leader of a process group of its own: a terminal's Ctrl-C does not reach it, and it is killed together
with the programs it started. When the run's process is gone, the socket says so, and the worker ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from gymrail.collect.event_loop import run_async
from gymrail.collect.executors.launcher import WorkerLost
from gymrail.collect.executors.station import Station

_LENGTH = struct.Struct(">Q")
_ORPHAN_SECONDS = 5.0
"""What a worker whose run is gone gets to close its episodes."""
_REAP_SECONDS = 10.0
_MAIN = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import main; main(int(sys.argv[1]))"


class Processes:
    """Starts workers as processes."""

    async def start(self, setup: bytes, slots: int) -> ProcessWorker:
        """Start one; see `Launcher`."""
        ours, theirs = socket.socketpair()
        try:
            process = _spawn(theirs.fileno())
        except OSError as error:
            ours.close()
            raise WorkerLost(f"a process cannot be started: {error.strerror or error}") from None
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        worker = ProcessWorker(process, reader, writer)
        worker.give(_LENGTH.pack(slots) + setup)
        return worker

    def close(self) -> None:
        """Nothing is shared."""


class ProcessWorker:
    """One of them; see `Worker`."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._reader = reader
        self._writer = writer

    def give(self, orders: bytes) -> None:
        # Not awaited: what a worker may hold is bounded.
        _send(self._writer, orders)

    async def take(self) -> bytes:
        message = await _receive(self._reader)
        if message is None:
            raise WorkerLost(f"process {self.pid} {await self._ending()}")
        return message

    async def kill(self) -> None:
        self._writer.close()
        # Before it is reaped: until then the number cannot be another's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait, _REAP_SECONDS)

    async def _ending(self) -> str:
        try:
            code = await asyncio.to_thread(self._process.wait, _REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its socket"
        if code >= 0:
            return f"exited with code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"was killed by {name}" + (", perhaps for lack of memory" if -code == signal.SIGKILL else "")


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _MAIN, str(descriptor), *sys.path],
        stdin=subprocess.DEVNULL,
        stdout=2,  # what an environment prints must not end up in the command's result
        pass_fds=[descriptor],
        process_group=0,
    )


def main(descriptor: int) -> None:
    """Be a worker, at the other end of the socket that was inherited as `descriptor`."""
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the programs that tools start would inherit
    connection = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_when_alone, args=(descriptor,), daemon=True).start()
    run_async(_work(connection))


def _end_when_alone(descriptor: int) -> None:
    """Kill this process and what it started a while after the run's process is gone: code that never yields would keep
    it."""
    poll = select.poll()
    poll.register(descriptor, 0)  # hang-ups are reported always
    poll.poll()
    time.sleep(_ORPHAN_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


async def _work(connection: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=connection)
    first = await _receive(reader)
    if first is None:
        return
    station = Station(_LENGTH.unpack_from(first)[0])
    is_open = await station.open(first[_LENGTH.size :])
    listening = asyncio.create_task(_listen(reader, station)) if is_open else None
    with contextlib.suppress(ConnectionError):
        while not station.is_closed:
            _send(writer, await station.report())
            await writer.drain()
            if listening is not None and listening.done():
                listening.result()
    if listening is not None:
        listening.cancel()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _listen(reader: asyncio.StreamReader, station: Station) -> None:
    while (message := await _receive(reader)) is not None:
        station.accept(message)
    station.close(cancel=True)


def _send(writer: asyncio.StreamWriter, message: bytes) -> None:
    if writer.is_closing():  # uvloop raises RuntimeError then; that the other end is gone, whoever waits on it learns
        return
    writer.writelines((_LENGTH.pack(len(message)), message))


async def _receive(reader: asyncio.StreamReader) -> bytes | None:
    """The next message; None where the other end is gone."""
    try:
        length = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0]
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
