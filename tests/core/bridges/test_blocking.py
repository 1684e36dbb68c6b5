"""Somebody else's code in a thread: results, errors, deadlines, what stays behind."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from gymrail.bridges import blocking
from gymrail.bridges.blocking import LoopThread, OwnThread
from gymrail.errors import InfrastructureError


def stop() -> None:
    raise StopIteration("done")


async def later(value: int) -> int:
    await asyncio.sleep(0)
    return value


def test_one_thread_runs_all_of_an_episodes_calls_plain_and_async() -> None:
    async def run() -> None:
        thread = OwnThread("game")
        names = {await thread.run(threading.get_ident) for _ in range(3)}
        assert len(names) == 1
        assert threading.get_ident() not in names
        assert await thread.run(later, 4) == 4
        loops = {id(await thread.run(lambda: later(1))) for _ in range(2)}
        assert len(loops) == 1
        with pytest.raises(ZeroDivisionError):
            await thread.run(lambda: 1 / 0)
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            await thread.run(stop)
        thread.close()

    asyncio.run(run())


async def give_up(thread: OwnThread, release: threading.Event) -> None:
    """Begin a call that returns with `release`, and wait for it no longer."""
    entered = threading.Event()

    def block() -> None:
        entered.set()
        release.wait(600)

    call = asyncio.ensure_future(thread.run(block))
    assert await asyncio.to_thread(entered.wait, 120)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 0.05)


def test_a_call_that_was_given_up_leaves_its_thread_and_is_cleaned_up_when_it_returns() -> None:
    release, closed = threading.Event(), threading.Event()

    async def run() -> None:
        thread = OwnThread("game")
        await give_up(thread, release)
        with pytest.raises(InfrastructureError, match="still busy"):
            await thread.run(print)
        thread.close(closed.set)

    asyncio.run(run())
    assert not closed.is_set()
    release.set()
    assert closed.wait(120)


def test_an_async_call_that_was_given_up_is_cancelled() -> None:
    entered, ended = threading.Event(), threading.Event()

    async def endless() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def run() -> None:
        thread = OwnThread("game")
        call = asyncio.ensure_future(thread.run(endless))
        assert await asyncio.to_thread(entered.wait, 120)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.05)
        thread.close()

    asyncio.run(run())
    assert ended.wait(120)


def test_with_too_many_calls_that_never_came_back_no_new_episode_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "MAX_STUCK", 1)
    release, closed = threading.Event(), threading.Event()

    async def run() -> None:
        thread = OwnThread("game")
        await give_up(thread, release)
        with pytest.raises(InfrastructureError, match="never came back"):
            OwnThread("another")
        thread.close(closed.set)

    asyncio.run(run())
    release.set()
    assert closed.wait(120)
    OwnThread("another")


def test_a_shared_loop_runs_episodes_at_once_in_one_thread() -> None:
    async def run() -> None:
        thread = LoopThread("shared")
        meeting: dict[str, Any] = {}

        async def meet(name: str) -> int:
            meeting.setdefault("event", asyncio.Event())
            if name == "second":
                meeting["event"].set()
            await meeting["event"].wait()
            return threading.get_ident()

        async with asyncio.timeout(120):
            first, second = await asyncio.gather(thread.run(meet, "first"), thread.run(meet, "second"))
        assert first == second != threading.get_ident()
        with pytest.raises(KeyError):
            await thread.run(lambda: {}["x"])
        thread.close()

    asyncio.run(run())
