"""A command run in several processes of this machine, one per GPU, which find each other by the environment variables
that `accelerate launch` and `torch.distributed.run` set too."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

_STOP_SECONDS = 20.0


def run_processes(command: Sequence[str], number: int) -> int:
    """Run the command so many times at once and return its exit code: the first that is not 0 ends the others."""
    signal.signal(signal.SIGTERM, _leave)
    port = str(_free_port())
    ended: queue.Queue[int] = queue.Queue()
    children = [subprocess.Popen(command, env=_environment(place, number, port)) for place in range(number)]
    for child in children:
        threading.Thread(target=lambda child=child: ended.put(child.wait()), daemon=True).start()
    try:
        for _ in children:
            code = ended.get()
            if code != 0:
                return code if code > 0 else 128 - code
        return 0
    except KeyboardInterrupt:  # the terminal has told the children too
        _wait(children)
        raise
    finally:
        _stop(children)


def _environment(place: int, number: int, port: str) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // number)
    return {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "RANK": str(place),
        "LOCAL_RANK": str(place),
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    _wait(children)


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
