"""The provider `docker`: a container per sandbox, by the command `docker` (or one that takes the same options).

The program inside travels as text on the command line, so that nothing of this machine is mounted.
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass, field

from gymrail.sandbox.limits import Limits
from gymrail.sandbox.provider import ENVIRONMENT, SCRATCH, Launch, inside_command

IMAGE = "python:3.11-slim"
_PROBE_SECONDS = 30.0
_NOBODY = 65534


@dataclass
class Docker:
    """Starts sandboxes by `docker run`."""

    image: str = IMAGE
    """An image with Python 3.11 or newer; the packages that the code may import are those installed in it."""
    command: str = "docker"
    name: str = field(default="docker", init=False)
    has_own_processes: bool = field(default=False, init=False)

    def problem(self) -> str | None:
        return _problem(self.command, self.image)

    def launch(self, limits: Limits) -> Launch:
        container = f"gymrail-{secrets.token_hex(8)}"
        private = f"rw,nosuid,nodev,mode=1777,size={4 * limits.file_bytes}"
        # The container's first process waits for the others; it and the program inside are not the code's.
        options = (
            "--rm", "--interactive", "--pull", "never", "--name", container, "--hostname", "sandbox", "--init",
            "--network", "none", "--ipc", "none", "--read-only", "--tmpfs", f"/tmp:{private}",
            "--tmpfs", f"{SCRATCH}:{private}", "--workdir", "/tmp",
            "--user", f"{_NOBODY}:{_NOBODY}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            "--pids-limit", str(limits.processes + 2), "--memory", str(limits.memory_bytes),
            "--memory-swap", str(limits.memory_bytes), "--cpus", "1", "--log-driver", "none",
        )  # fmt: skip
        variables = [option for name, value in ENVIRONMENT.items() for option in ("--env", f"{name}={value}")]
        inside = inside_command("python3", limits, user=0, processes=0, owns_pids=True, folder="/tmp", scratch=SCRATCH)
        program = shutil.which(self.command) or self.command
        return Launch(
            (program, "run", *options, *variables, self.image, *inside),
            # The client's own: which engine it talks to stands there. The container sees ENVIRONMENT alone.
            dict(os.environ),
            kill_command=(program, "kill", container),
        )


@functools.cache
def _problem(command: str, image: str) -> str | None:
    if shutil.which(command) is None:
        return f"the program {command} is not installed: https://docs.docker.com/engine/install"
    engine = _ask(command, "version", "--format", "{{.Server.Version}}")
    if engine is not None:
        return f"the {command} engine does not answer ({engine}); start it: systemctl start docker"
    if _ask(command, "image", "inspect", "--format", "{{.Id}}", image) is not None:
        return f"the image {image} is not on this machine: {command} pull {image}"
    return None


def _ask(*command: str) -> str | None:
    """Run a command; say what went wrong, None when it went well."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"no answer within {_PROBE_SECONDS:g} seconds"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]
