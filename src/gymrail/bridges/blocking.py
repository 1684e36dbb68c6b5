"""Somebody else's code in a thread of its own, so that a deadline holds even when that code blocks.

    thread = OwnThread("FrozenLake-v1")
    observation = await thread.run(environment.step, 2)
    thread.close(environment.close)

Covers: code that computes, waits or hangs, plain or async (the thread has an event loop for it); one thread per
episode, for libraries that want to be called from the thread they were opened in.
Does not cover: ending a call that hangs. Its thread stays behind until it returns or the process ends, which it does
not hold up; with `MAX_STUCK` of them no new episode begins.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Callable
from typing import Any

from gymrail.errors import InfrastructureError, attempt

MAX_STUCK = 64
_STUCK = "gymrail-stuck: "
_Job = tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any, BaseException | None], None]]


class OwnThread:
    """Runs one episode's calls one after another in a daemon thread.

    Raises:
        InfrastructureError: too many earlier calls never came back.
    """

    # Without a __dict__ it is no part of an episode's state, which replays compare.
    __slots__ = ("_awaiting", "_is_stuck", "_jobs", "_thread", "name")

    def __init__(self, name: str) -> None:
        stuck = sum(thread.name.startswith(_STUCK) for thread in threading.enumerate())
        if stuck >= MAX_STUCK:
            raise InfrastructureError(
                f"{stuck} calls into {name} and its like never came back, so no new episode begins; start again."
            )
        self.name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._awaiting: asyncio.Task[Any] | None = None
        self._is_stuck = False

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a plain or an async function in the thread; whoever stops waiting leaves the thread behind.

        Raises:
            InfrastructureError: an earlier call has not come back.
        """
        if self._is_stuck:
            raise InfrastructureError(f"{self.name} is still busy with a call that was given up.")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if not waiter.done():
                if error is None:
                    waiter.set_result(value)
                else:
                    waiter.set_exception(error)

        def tell(value: Any, error: BaseException | None) -> None:
            attempt(loop.call_soon_threadsafe, settle, value, error)  # the loop may have ended since

        thread = self._start()
        self._jobs.put((function, arguments, tell))
        try:
            return await waiter
        except asyncio.CancelledError:
            self._is_stuck = True
            thread.name = f"{_STUCK}{self.name}"
            if self._awaiting is not None:
                attempt(self._awaiting.get_loop().call_soon_threadsafe, self._awaiting.cancel)
            raise

    def close(self, function: Callable[[], Any] | None = None) -> None:
        """End the thread when its last call comes back, after `function`; waits for neither."""
        if self._thread is not None:
            if function is not None:
                self._jobs.put((function, (), lambda value, error: None))
            self._jobs.put(None)

    def _start(self) -> threading.Thread:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"gymrail: {self.name}", daemon=True)
            self._thread.start()
        return self._thread

    def _work(self) -> None:
        runner = asyncio.Runner()  # it makes its event loop when the first awaitable comes
        while (job := self._jobs.get()) is not None:
            function, arguments, tell = job
            value, error = attempt(self._call, runner, function, arguments)
            threading.current_thread().name = f"gymrail: {self.name}"
            if isinstance(error, StopIteration):  # no future can carry it: the caller would wait for ever
                error = RuntimeError(f"{self.name} raised StopIteration: {error}")
            tell(value, error)
        attempt(runner.close)

    def _call(self, runner: asyncio.Runner, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        result = function(*arguments)
        return runner.run(self._await(result)) if inspect.isawaitable(result) else result

    async def _await(self, result: Any) -> Any:
        self._awaiting = asyncio.current_task()
        try:
            return await result
        finally:
            self._awaiting = None


class LoopThread:
    """An event loop in a daemon thread that all episodes share, for libraries whose objects belong to one event loop.

    A call that blocks holds the other episodes up, whose deadlines hold all the same.
    """

    __slots__ = ("_loop", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._work, name=f"gymrail: {name}", daemon=True).start()

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a plain or an async function there; whoever stops waiting cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_called(function, arguments), self._loop))

    def close(self) -> None:
        """End the thread when what it does now is done; does not wait."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _work(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())  # connections are kept until then
        self._loop.close()


async def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    result = function(*arguments)
    return await result if inspect.isawaitable(result) else result
