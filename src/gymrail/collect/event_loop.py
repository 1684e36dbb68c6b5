"""The event loop that rollouts run on: uvloop where it is installed (not on Windows), asyncio's own otherwise.

A model call crosses from the HTTP client's thread to the loop; on uvloop that costs half as much. While it runs, Python
looks for cyclic garbage less often: an open episode's records are young for long, and looking at them again and again
costs 6% of a rollout's CPU time.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_YOUNG_OBJECTS = 50_000
"""So many more objects than now, some megabytes, before Python looks for cycles among them; 700 is its default."""


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a new loop, as `asyncio.run` does; no policy is set, no other loop changes."""
    with rare_collections(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for cyclic garbage less often meanwhile, unless this process does so already or has it switched off."""
    before = gc.get_threshold()
    if 0 < before[0] < _YOUNG_OBJECTS:
        gc.set_threshold(_YOUNG_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make the fastest loop there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
