"""The worker process of `Workers`: reads calls from stdin, one JSON line each, and writes their results to stdout."""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import Any, BinaryIO

import orjson

from gymrail.errors import attempt

try:
    import resource
except ImportError:  # Windows has no limits of this kind; the wall time remains
    resource = None


def work(arguments: list[str]) -> None:
    """Serve until stdin ends, which it does with the process that started this one.

    Args:
        arguments: CPU seconds of a call, bytes of memory, then modules to load first.
    """
    cpu_seconds, memory_bytes, *modules = arguments
    for module in modules:
        importlib.import_module(module)
    answers = _own_stdout()
    _limit_memory(int(memory_bytes))
    answers.write(b"ready\n")
    answers.flush()
    _be_silent()
    functions: dict[tuple[str, str], Any] = {}
    for line in sys.stdin.buffer:
        module, name, values = orjson.loads(line)
        error = None
        if (module, name) not in functions:
            functions[module, name], error = attempt(_find, module, name)
        _limit_time(int(cpu_seconds))
        answers.write(_reply(functions[module, name], values, error) + b"\n")
        answers.flush()


def _find(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _reply(function: Any, values: list[Any], error: BaseException | None) -> bytes:
    value = None
    if error is None:
        value, error = attempt(function, *values)
    if error is None:
        value, error = attempt(orjson.dumps, {"value": value})
    if error is None:
        assert isinstance(value, bytes)
        return value
    is_costly = isinstance(error, MemoryError | RecursionError)
    text, _ = attempt(str, error)
    return orjson.dumps({"error": f"{type(error).__name__}: {(text or '')[:300]}", "is_costly": is_costly})


def _own_stdout() -> BinaryIO:
    """Keep stdout for the answers: what a library prints must not stand among them."""
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "wb")


def _be_silent() -> None:
    """From now on nobody reads stderr, and a full pipe would stop this process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _limit_memory(count: int) -> None:
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time(seconds: int) -> None:
    """The kernel ends this process when it has used up so many seconds more; it counts whole ones."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + seconds, hard))
