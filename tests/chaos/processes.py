"""The processes of the chaos test: they are started, found, killed with SIGKILL, and missed when they stay. Linux only.

What `gymrail rollout` starts is found by a mark in its environment variables, which every descendant inherits: also a
worker whose parent was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from tests.chaos.model import NAME, Counts

ROOT = Path(__file__).parents[2]
_MARK = "GYMRAIL_CHAOS_MARK"
_START_SECONDS = 120.0
_HELPERS = (b"resource_tracker", b"forkserver")
"""Processes of multiprocessing that play no episodes."""


class ModelProcess:
    """The model as a process that can be killed and started again on the same port."""

    def __init__(self, folder: Path, name: str, rate: float = 0.0, seed: str = "0") -> None:
        self.counts = folder / f"{name}-counts.bin"
        self.starts = 0
        self._log = (folder / "model.log").open("ab")
        self._rate = rate
        self._seed = seed
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def faults(self) -> dict[str, int]:
        return Counts.read(self.counts)

    def start(self, rate: float | None = None) -> None:
        """Start it, on the port that it had before; `rate` replaces the rate of its faults."""
        self._rate = self._rate if rate is None else rate
        options = {"port": self._port, "rate": self._rate, "seed": f"{self._seed}:{self.starts}", "counts": self.counts}
        command = [sys.executable, "-m", "tests.chaos.model"]
        command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self.starts += 1
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._log)
        assert self._process.stdout is not None
        line = _first_line(self._process.stdout, self._process)
        self._port = int(line)

    def kill(self) -> None:
        """Kill it in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._log.close()


class RunnerProcess:
    """`gymrail rollout`, with everything that it starts."""

    def __init__(self, options: Sequence[str], log: IO[bytes], mark: str, variables: Mapping[str, str]) -> None:
        self.mark = mark
        self.started = time.monotonic()
        environment = {**os.environ, **variables, _MARK: mark}
        command = [sys.executable, "-m", "gymrail", "rollout", *options]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def workers(self) -> list[int]:
        """The processes that play episodes for it."""
        helpers = {self._process.pid, *(pid for pid in marked(self.mark) if _is_helper(pid))}
        return sorted(set(marked(self.mark)) - helpers)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def model_options(url: str) -> list[str]:
    """How `gymrail rollout` is told of the model."""
    return ["--model", url, "--model-name", NAME]


def marked(mark: str) -> list[int]:
    """Return the processes that inherited the mark, dead ones that nobody has waited for left out."""
    wanted = f"{_MARK}={mark}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # A zombie has no environment any more.
            if wanted in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def kill(pid: int) -> bool:
    """Kill a process; False where it has ended by itself."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def orphans(marks: Sequence[str], within_seconds: float) -> list[int]:
    """Wait until nothing that bears one of the marks is alive, and return what still is when the time is over."""
    deadline = time.monotonic() + within_seconds
    while True:
        alive = [pid for mark in marks for pid in marked(mark)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)


def _is_helper(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return any(name in command for name in _HELPERS)


def _first_line(stream: IO[bytes], process: subprocess.Popen[bytes]) -> str:
    """Read the line that says that a server listens, and kill one that does not come to say it."""
    watchdog = threading.Timer(_START_SECONDS, process.kill)
    watchdog.start()
    try:
        line = stream.readline().decode().strip()
    finally:
        watchdog.cancel()
    if not line:
        raise RuntimeError(f"the model ended before it listened, with exit code {process.wait()}; see model.log")
    return line
