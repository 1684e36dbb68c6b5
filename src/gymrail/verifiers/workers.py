"""Plain functions in worker processes that can be killed: for what may hang, and for what would hold up the event loop.

    workers = Workers(imports=("math_verify",))
    await workers.call(compare, "1/2", "0.5")        # a function at the top of a module; arguments and result are JSON

Covers: CPU time per call, by the kernel, so that a busy machine changes no result; memory; a limit of wall time against
whatever waits for ever; a queue that is bounded; use from several event loops and threads. Processes are started when
they are needed and get none of this process's secrets.
Does not cover: isolation. A worker may read files and use the network; code written by a model belongs in the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from gymrail.errors import GymrailError, VerifierError

_PROGRAM = (
    "import json, sys; sys.path.extend(json.loads(sys.argv[1])); "
    "from gymrail.verifiers.worker import work; work(sys.argv[2:])"
)
_START_SECONDS = 300.0
_WALL_SECONDS = 120.0
_MAX_QUEUE = 100_000
_KEPT_VARIABLES = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONPATH",
    "SYSTEMROOT",
    "TMPDIR",
    "VIRTUAL_ENV",
)
_OWN_FAULT = frozenset({"SIGXCPU", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"})
"""Deaths that the call itself brought about; any other is somebody else's doing."""


class TooCostly(GymrailError):
    """A call took more CPU time or memory than it may, or broke the interpreter; its worker was replaced."""


class Workers:
    """Up to `count` processes, one call at a time in each. Close it when its user is done."""

    def __init__(
        self,
        count: int | None = None,
        *,
        cpu_seconds: int = 5,
        memory_bytes: int = 4 << 30,
        imports: Sequence[str] = (),
    ) -> None:
        """Start nothing yet.

        Args:
            count: processes; by default as many as there are cores, at most 4.
            cpu_seconds: of one call.
            memory_bytes: address space of one process.
            imports: modules that a process loads before its first call, whose time does not count.
        """
        self.count = count or min(4, os.cpu_count() or 1)
        self.cpu_seconds = cpu_seconds
        self._arguments = [str(cpu_seconds), str(memory_bytes), *imports]
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._idle: list[_Worker] = []
        self._alive: set[_Worker] = set()
        # Nobody is left to close them when this object is gone.
        weakref.finalize(self, _end, self._alive, os.getpid())
        self._queued = 0
        self._process = os.getpid()
        self.started = 0
        """Processes, the replaced ones included."""

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `function` returns, called in a worker.

        Raises:
            TooCostly: it took too much, or its worker broke.
            VerifierError: it raised something, no worker could be started, or too many calls wait.
        """
        cleaned = [_writable(value) for value in arguments]
        request = orjson.dumps([function.__module__, function.__qualname__, cleaned]) + b"\n"
        if self._queued >= _MAX_QUEUE:
            raise VerifierError(f"{self._queued} calls wait for {self.count} workers already; verify fewer at once.")
        loop = asyncio.get_running_loop()
        threads = self._open()
        self._queued += 1
        try:
            reply = await loop.run_in_executor(threads, self._run, request)
        finally:
            self._queued -= 1
        if "error" not in reply:
            return reply["value"]
        raise (TooCostly if reply["is_costly"] else VerifierError)(f"{function.__name__}: {reply['error']}")

    async def aclose(self) -> None:
        """Kill the processes; a later call starts new ones."""
        with self._lock:
            threads, self._threads = self._threads, None
            workers = [] if self._process != os.getpid() else list(self._alive)
            self._alive.clear()
            self._idle.clear()
        for worker in workers:
            worker.kill()
        if threads is not None and self._process == os.getpid():
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)
        for worker in workers:
            worker.reap()

    def _open(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._process != os.getpid():  # forked: threads and pipes are the parent's
                self._process, self._threads, self._queued = os.getpid(), None, 0
                self._alive.clear()
                self._idle.clear()
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.count, "gymrail-workers")
            return self._threads

    def _run(self, request: bytes) -> dict[str, Any]:
        """Run in a thread: there are as many as workers, so that one is free or may be started."""
        for attempt in (1, 2):
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                worker = _Worker(self._arguments)
                trouble = worker.start() if self._adopt(worker) else "the workers were closed"
                if trouble is not None:
                    self._bury(worker)
                    return {"error": trouble, "is_costly": False}
            line = worker.ask(request, _WALL_SECONDS)
            if line is not None:
                with self._lock:
                    if worker in self._alive:
                        self._idle.append(worker)
                return orjson.loads(line)
            cause = self._bury(worker)
            if cause in _OWN_FAULT:
                text = (
                    f"used up its {self.cpu_seconds} seconds of CPU time" if cause == "SIGXCPU" else f"died of {cause}"
                )
                return {"error": text, "is_costly": True}
            if attempt == 2 or worker.is_late:
                late = f"gave no answer within {_WALL_SECONDS:g} seconds" if worker.is_late else f"was ended by {cause}"
                return {"error": f"the worker process {late}", "is_costly": False}
        raise AssertionError("unreachable")

    def _adopt(self, worker: _Worker) -> bool:
        with self._lock:
            if self._threads is not None:
                self._alive.add(worker)
                self.started += 1
                return True
        worker.kill()
        return False

    def _bury(self, worker: _Worker) -> str:
        with self._lock:
            self._alive.discard(worker)
        return worker.reap()


class _Worker:
    """One process; a thread at a time talks to it."""

    def __init__(self, arguments: Sequence[str]) -> None:
        # It finds what this process finds; -P keeps a file of the current folder from hiding a library's.
        places = orjson.dumps([os.path.abspath(place) for place in sys.path]).decode()
        command = [sys.executable, "-P", "-c", _PROGRAM, places, *arguments]
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        self.is_late = False

    def start(self) -> str | None:
        """Wait until it is ready; return what is wrong otherwise."""
        if self._line(_START_SECONDS) == b"ready\n":
            return None
        self.kill()
        _, said = self._process.communicate()
        last = said.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"no worker process could be started: {last[0] if last else 'it ended without a word'}"

    def ask(self, request: bytes, seconds: float) -> bytes | None:
        """Return its answer, or None where it ended instead."""
        assert self._process.stdin is not None
        timer = self._timer(seconds)
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
            line = self._read()
        except (BrokenPipeError, ValueError):  # it ended, or was closed
            line = b""
        finally:
            timer.cancel()
        return line if line.endswith(b"\n") else None

    def kill(self) -> None:
        self._process.kill()

    def reap(self) -> str:
        """End it, close its pipes and return the signal that ended it."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # what was written last never arrived
                self._process.stdin.close()
        code = self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _line(self, seconds: float) -> bytes:
        timer = self._timer(seconds)
        try:
            return self._read()
        finally:
            timer.cancel()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _timer(self, seconds: float) -> threading.Timer:
        def end() -> None:
            self.is_late = True
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        return timer


def _end(workers: set[_Worker], process: int) -> None:
    while workers and process == os.getpid():
        worker = workers.pop()
        worker.kill()
        worker.reap()


def _writable(value: Any) -> Any:
    """A model may write half a surrogate pair, which JSON cannot."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
