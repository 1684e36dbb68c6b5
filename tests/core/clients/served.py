"""A real server in a process of its own, for tests that end it. `python served.py PORT KEY NAME...`"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY = "a-key-of-the-tests"
_START_SECONDS = 60.0


class ServedProcess:
    """A server process and its address."""

    def __init__(self, names: tuple[str, ...], key: str = KEY) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen([sys.executable, __file__, str(self.port), key, *names])

    def wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the server at {self.url} did not come up")

    def kill(self) -> None:
        """As `kill -9` does it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def served(*names: str, count: int = 1, key: str = KEY) -> Iterator[list[ServedProcess]]:
    """Serve environments from `count` processes."""
    servers = [ServedProcess(names, key) for _ in range(count)]
    try:
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.kill()


def example_file(name: str) -> Path:
    """The example tasks of one of our environments."""
    return Path(__file__).parents[3] / "environments" / "gymrail_environments" / name / "data" / "example.jsonl"


if __name__ == "__main__":
    import uvicorn

    from gymrail.registry import find
    from gymrail.serving.http import create_app
    from gymrail.serving.settings import Settings

    port, key, *names = sys.argv[1:]
    app = create_app([find(name) for name in names], Settings.for_address("127.0.0.1", key=key))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False)
