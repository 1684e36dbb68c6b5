import asyncio
import logging
import threading
import time
from random import Random

import pytest

from gymrail.errors import ModelError
from gymrail.models import pace as pace_module
from gymrail.models.limit import UNLIMITED
from gymrail.models.pace import Load, Pace, total_load

PATIENCE = 60.0


class Clock:
    """Stands still but for the test: a machine that stalls lets no time pass here."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace_module, "time", made)
    return made


async def enter(pace: Pace, seconds: float = 120.0) -> float:
    started = pace.try_enter()
    return await pace.enter(pace_module.time.monotonic() + seconds, PATIENCE) if started is None else started


def test_those_who_wait_enter_in_their_order_and_the_refused_before_them() -> None:
    async def run() -> list[str]:
        pace = Pace("x", most=1)
        first = await enter(pace)
        order: list[str] = []

        async def wait(name: str, is_again: bool = False) -> None:
            await pace.enter(time.monotonic() + 120, PATIENCE, is_again)
            order.append(name)
            pace.give_back()

        waiting = [asyncio.create_task(wait(name)) for name in "abc"]
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(wait("again", True)))
        await asyncio.sleep(0)
        assert pace.load == Load(1, 4, 1)
        assert pace.try_enter() is None
        pace.leave(first, 1)
        await asyncio.gather(*waiting)
        assert pace.load == Load(1, 0, 0)
        return order

    assert asyncio.run(run()) == ["again", "a", "b", "c"]


@pytest.mark.parametrize("seed", range(5))
def test_random_cancellations_lose_no_slot(seed: int) -> None:
    async def run() -> None:
        pace, rng, most = Pace("x", most=3), Random(seed), 0

        async def use() -> None:
            nonlocal most
            started = await enter(pace)
            try:
                most = max(most, pace.load.in_flight)
                await asyncio.sleep(rng.uniform(0, 0.002))
            finally:
                pace.leave(started, 1) if rng.random() < 0.7 else pace.give_back()

        tasks = [asyncio.create_task(use()) for _ in range(400)]
        while not all(task.done() for task in tasks):
            rng.choice(tasks[:300]).cancel()
            rng.choice(tasks[:300]).cancel()
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert results[300:].count(None) == 100
        assert most == 3
        assert pace.load == Load(3, 0, 0)
        started = await asyncio.gather(*(enter(pace) for _ in range(3)))
        assert pace.try_enter() is None
        assert len(started) == 3

    asyncio.run(run())


def test_a_slot_given_to_a_cancelled_waiter_goes_on_to_the_next() -> None:
    async def run() -> None:
        pace = Pace("x", most=1)
        started = await enter(pace)
        first, second = (asyncio.create_task(enter(pace)) for _ in range(2))
        await asyncio.sleep(0)
        pace.leave(started, 1)  # the first has the slot now and does not know it
        first.cancel()
        await asyncio.wait_for(second, 120)
        assert pace.load == Load(1, 0, 1)

    asyncio.run(run())


def test_event_loops_in_several_threads_share_the_slots() -> None:
    pace, most, done = Pace("x", most=4), [0], []

    async def use() -> None:
        started = await enter(pace)
        most[0] = max(most[0], pace.load.in_flight)
        await asyncio.sleep(0.0005)
        pace.leave(started, 1)
        done.append(1)

    async def many() -> None:
        await asyncio.gather(*(use() for _ in range(200)))

    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert (len(done), most[0], pace.load) == (600, 4, Load(4, 0, 0))


def test_a_waiter_whose_event_loop_is_gone_is_passed_over() -> None:
    pace = Pace("x", most=1)
    started = pace.try_enter()
    assert started is not None
    loop = asyncio.new_event_loop()
    task = loop.create_task(pace.enter(None, PATIENCE))
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()

    async def run() -> None:
        waiting = asyncio.create_task(enter(pace))
        await asyncio.sleep(0)
        pace.leave(started, 1)
        await asyncio.wait_for(waiting, 120)

    asyncio.run(run())
    del task
    assert pace.load == Load(1, 0, 1)


def test_a_pause_that_one_request_is_asked_for_holds_for_all_and_can_grow(clock: Clock) -> None:
    async def run() -> None:
        pace = Pace("x")
        one, two = await enter(pace), await enter(pace)
        pace.refuse(one, 0.1)
        assert pace.is_paused
        waiting = [asyncio.create_task(enter(pace)) for _ in range(3)]
        await asyncio.sleep(0)
        pace.refuse(two, 0.2)
        clock.now += 0.15
        await asyncio.sleep(0.3)  # the timers of both have run
        assert pace.is_paused
        assert not any(task.done() for task in waiting)
        clock.now += 0.1
        await asyncio.gather(*[asyncio.wait_for(task, 120) for task in waiting[:1]])
        for task in waiting[1:]:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert pace.load.waiting == 0

    asyncio.run(run())


def test_a_pause_begun_by_another_thread_ends_for_those_who_wait_here() -> None:
    async def run() -> None:
        pace = Pace("x", most=1)
        started = await enter(pace)
        waiting = asyncio.create_task(enter(pace))
        await asyncio.sleep(0)
        await asyncio.to_thread(pace.refuse, started, 0.05)
        await asyncio.wait_for(waiting, 120)

    asyncio.run(run())


def test_no_slot_in_time_is_a_model_error_that_says_the_endpoint_is_saturated() -> None:
    async def run() -> None:
        pace = Pace("http://x/v1", most=1)
        await enter(pace)
        with pytest.raises(ModelError, match=r"^http://x/v1 is saturated: .* it bears 1 at once, answers 1, 1 wait"):
            await enter(pace, 0.05)
        with pytest.raises(ModelError, match="saturated"):  # nothing is answered, and no deadline ends it
            await asyncio.wait_for(pace.enter(None, 0.05), 120)
        assert pace.load == Load(1, 0, 1)

    asyncio.run(run())


def test_without_a_deadline_a_wait_goes_on_while_the_endpoint_answers(clock: Clock) -> None:
    async def run() -> None:
        pace = Pace("x", most=2)
        await enter(pace)
        busy = await enter(pace)
        waiting = [asyncio.create_task(pace.enter(None, 0.1)) for _ in range(8)]
        for _ in range(8):
            await asyncio.sleep(0.04)
            clock.now += 0.04
            pace.leave(busy, 1)
            busy = clock.now
        await asyncio.wait_for(asyncio.gather(*waiting), 120)

    asyncio.run(run())


def test_an_endpoint_that_refuses_everything_is_asked_ever_less_often(clock: Clock) -> None:
    pace = Pace("x", first_wait_seconds=0.01, max_wait_seconds=0.08)

    async def alone() -> list[float]:
        pauses = []
        for _ in range(6):
            started = await enter(pace)
            pace.refuse(started, None)
            pauses.append(pace._opens_at - clock.now)
            clock.now = pace._opens_at
        return pauses

    pauses = asyncio.run(alone())
    assert all(pause <= most for pause, most in zip(pauses, (0.01, 0.02, 0.04, 0.08, 0.08, 0.08), strict=True))
    assert min(pauses[3:]) > 0.03


def test_a_limit_that_falls_while_others_wait_is_told_once(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    caplog.set_level(logging.INFO, "gymrail.models")

    async def run() -> None:
        pace = Pace("http://x/v1")
        started = [await enter(pace) for _ in range(40)]
        for one in started[:32]:
            pace.refuse(one, None)
        waiting = [asyncio.create_task(enter(pace)) for _ in range(40)]
        await asyncio.sleep(0)
        for one in started[32:]:
            pace.leave(one, 1)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("http://x/v1 is sent ")
    assert lines[0].endswith("requests at once from now on (before: no limit)")


def test_loads_add_up() -> None:
    assert total_load([Load(8, 3, 8), Load(4, 0, 1)]) == Load(12, 3, 9)
    assert total_load([Load(UNLIMITED, 0, 1), Load(4, 0, 1)]) == Load(UNLIMITED, 0, 2)
