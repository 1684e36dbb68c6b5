"""A model against endpoints that refuse or slow down: the requests at once settle where the endpoint is well, and no
episode fails for it."""

import asyncio
import time
from random import Random
from statistics import median

import pytest

from gymrail.episode import Limits
from gymrail.models.model import ModelRequest
from gymrail.models.openai import EndpointSettings, OpenAIModel
from tests.core.models.capacity import Capacity, play_many

QUICK = EndpointSettings(first_wait_seconds=0.01, max_wait_seconds=1.0)
REQUEST = ModelRequest([{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize("headers", [{}, {"Retry-After-Ms": "20"}], ids=["plain", "retry-after"])
def test_an_endpoint_that_takes_eight_at_once_gets_about_eight_and_fails_no_episode(headers: dict[str, str]) -> None:
    """On a busy machine answers come late and the limit swings; virtual time asserts how near it comes."""

    async def run() -> None:
        rng = Random(1)
        server = Capacity(lambda together: rng.uniform(0.005, 0.025), most=8, refusal_headers=headers)
        async with server, OpenAIModel("m", server.url, settings=QUICK) as model:
            summary, _ = await play_many(model, 200, concurrency=64)
            assert summary.scored == 200
            assert server.answered == model.calls == 600
            assert server.refused == model.retries < 600
            later = server.seen[len(server.seen) // 3 :]
            assert 2 <= median(later) <= 16
            assert model.load.limit <= 32
            assert model.load[1:] == (0, 0)

    asyncio.run(run())


def test_an_endpoint_that_thrashes_is_sent_fewer_requests_and_answers_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """How near it comes to the best number is asserted in virtual time, where no other program takes the processor."""
    monkeypatch.setattr("gymrail.models.pace.AT_ONCE_SECONDS", 0.0)  # a slow endpoint, played faster

    unit = 0.02

    def thrashing(together: int) -> float:
        return unit * max(1.0, together / 6) ** 2

    async def rate(model: OpenAIModel, server: Capacity) -> float:
        """Requests per second of an endpoint that does nothing but wait, whatever the machine took for it."""
        server.seen.clear()
        summary, _ = await play_many(model, 60, concurrency=24)
        assert summary.scored == 60
        return len(server.seen) / sum(thrashing(together) / together for together in server.seen)

    async def run() -> None:
        nonlocal unit
        fixed = EndpointSettings(max_concurrency=24)
        async with Capacity(lambda _: 0.0) as server, OpenAIModel("m", server.url, settings=fixed) as model:
            started = time.monotonic()
            await play_many(model, 20, concurrency=24)
            unit = max(unit, 10 * (time.monotonic() - started) / 60)  # what the machine takes itself matters little
        async with Capacity(thrashing) as server, OpenAIModel("m", server.url, settings=fixed) as model:
            drowning = await rate(model, server)
        async with Capacity(thrashing) as server, OpenAIModel("m", server.url) as model:
            await play_many(model, 25, concurrency=4)  # what it is like when it is well
            rates: list[float] = []
            while not rates or rates[-1] < 1.5 * drowning:  # a busy machine makes it learn more slowly
                assert len(rates) < 20, (drowning, rates)
                rates.append(await rate(model, server))

    asyncio.run(run())


def test_a_rate_limited_endpoint_fails_no_episode_whose_time_allows_waiting() -> None:
    async def run() -> None:
        server = Capacity(most=0, refusal_headers={"Retry-After-Ms": "50"})
        async with server, OpenAIModel("m", server.url, settings=EndpointSettings(max_retries=0)) as model:
            started = time.monotonic()
            playing = asyncio.create_task(play_many(model, 20, concurrency=20))
            async with asyncio.timeout(120):
                while server.refused < 35:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            # All together were asked once and then paused, so they ask about once per pause and not once each.
            assert server.refused <= 20 + 2 * (time.monotonic() - started) / 0.05
            server.most = None
            summary, _ = await playing
            assert summary.scored == 20

    asyncio.run(run())


def test_an_episode_whose_time_runs_out_in_the_line_says_that_the_endpoint_is_saturated() -> None:
    async def run() -> None:
        settings = EndpointSettings(max_concurrency=1)
        async with Capacity(lambda _: 0.6) as server, OpenAIModel("m", server.url, settings=settings) as model:
            for _ in range(5):  # again where the machine stalled just then: that is a timeout of another kind
                _, rollouts = await play_many(model, 3, concurrency=3, limits=Limits(episode_seconds=1.0))
                failures = [rollout.failure for rollout in rollouts if rollout.failure is not None]
                assert len(failures) >= 2
                if any("is saturated: no request could be sent" in failure.message for failure in failures):
                    break
            else:
                raise AssertionError(failures)
            assert all(failure.kind in ("model", "timeout") for failure in failures)
            assert all(rollout.reward is None for rollout in rollouts if rollout.failure is not None)
            assert model.load.in_flight == model.load.waiting == 0

    asyncio.run(run())


def test_max_concurrency_is_never_exceeded() -> None:
    async def run() -> None:
        settings = EndpointSettings(max_concurrency=3)
        async with Capacity() as server, OpenAIModel("m", server.url, settings=settings) as model:
            summary, _ = await play_many(model, 30, concurrency=30)
            assert summary.scored == 30
            assert max(server.seen) == 3

    asyncio.run(run())


def test_cancelled_requests_give_their_slots_back() -> None:
    async def run() -> None:
        settings = EndpointSettings(max_concurrency=2)
        async with Capacity(lambda _: 0.05) as server, OpenAIModel("m", server.url, settings=settings) as model:
            for _ in range(5):
                tasks = [asyncio.create_task(model.respond(REQUEST)) for _ in range(6)]
                await asyncio.sleep(0.01)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert model.load == (2, 0, 0)
            await asyncio.wait_for(model.respond(REQUEST), 120)

    asyncio.run(run())
