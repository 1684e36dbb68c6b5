"""A real server in a process of its own, for tests that end it. `python served.py SOCKET KEY NAME...`"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY = "a-key-of-the-tests"
_START_SECONDS = 300.0


class ServedProcess:
    """A server process and its address."""

    def __init__(self, names: tuple[str, ...], key: str = KEY) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:  # handed over, so that nobody else gets the port
            number = listening.fileno()
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            command = [sys.executable, __file__, str(number), key, *names]
            self.process = subprocess.Popen(command, pass_fds=[number])

    def wait(self) -> None:
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=_START_SECONDS).close()
        except OSError as error:
            raise AssertionError(f"the server at {self.url} did not come up: {error}") from error

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

    number, key, *names = sys.argv[1:]
    app = create_app([find(name) for name in names], Settings.for_address("127.0.0.1", key=key))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, timeout_keep_alive=600))
    server.run([socket.socket(fileno=int(number))])
