"""Work on batches in their order, in this process or in several."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

BatchT = TypeVar("BatchT")
ResultT = TypeVar("ResultT")
_WAITING = 2
"""Batches per process that are handed out ahead, so that none waits for the next."""


def in_order(
    function: Callable[[Any, BatchT], ResultT],
    start: Callable[[], Any],
    batches: Iterable[BatchT],
    processes: int = 1,
) -> Iterator[ResultT]:
    """Yield `function(state, batch)` for each batch; a process makes its state once, with `start`.

    Args:
        function: importable by name, like `start`, where there are several processes.
        start: makes what the function needs beside a batch.
        processes: 1 works here. More are spawned, so a script that asks for them needs its
            `if __name__ == "__main__":`.
    """
    if processes <= 1:
        state = start()
        for batch in batches:
            yield function(state, batch)
        return
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(function, start)
    ) as pool:
        waiting: deque[Future[ResultT]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(_run, batch))
                if len(waiting) > _WAITING * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


_here: dict[str, Any] = {}
"""What a worker process was begun with; empty everywhere else."""


def _begin(function: Callable[[Any, Any], Any], start: Callable[[], Any]) -> None:
    _here.update(function=function, state=start())


def _run(batch: Any) -> Any:
    return _here["function"](_here["state"], batch)
