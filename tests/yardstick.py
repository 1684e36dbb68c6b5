"""CPU time in multiples of known work that is done here and now, so that a limit holds on a slow machine as on a fast
one. The figures in seconds are those of `make bench`."""

import os
import resource
import subprocess
import sys
import time

IMPORTS = "import asyncio, json, pydantic, yaml"
"""Takes about 0.1 seconds of CPU time on a fast core."""
_ROUNDS = 3


def seconds_of_steps() -> float:
    """Return the CPU seconds of 300,000 steps of a plain loop: about 0.03 on a fast core."""
    return min(_steps() for _ in range(_ROUNDS))


def seconds_of_command(*arguments: str) -> float:
    """Return the least CPU seconds that Python takes with these arguments."""
    return min(_command(arguments) for _ in range(_ROUNDS))


def seconds_of_imports() -> float:
    """Return the CPU seconds of a new Python that loads some libraries which everything here needs."""
    return seconds_of_command("-c", IMPORTS)


def _steps() -> float:
    started = time.process_time()
    total, last = 0, dict[int, int]()
    for index in range(300_000):
        total += index * index % 7
        last[index & 1023] = total
    return time.process_time() - started


def _command(arguments: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "COLUMNS": "120"}
    subprocess.run([sys.executable, *arguments], capture_output=True, timeout=300, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
