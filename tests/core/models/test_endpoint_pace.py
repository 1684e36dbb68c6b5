"""A model against endpoints that refuse or slow down: the requests at once settle where the endpoint is well, and no
episode fails for it."""

import asyncio
import time
from random import Random

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
            assert server.refused == model.retries < 0.4 * 600
            later = server.seen[len(server.seen) // 3 :]
            assert sum(4 <= seen <= 9 for seen in later) > 0.5 * len(later)
            assert sum(seen > 8 for seen in later) < 0.15 * len(later)
            assert 3 <= model.load.limit <= 14
            assert model.load[1:] == (0, 0)

    asyncio.run(run())


def test_an_endpoint_that_thrashes_is_sent_fewer_requests_and_answers_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """How near it comes to the best number is asserted in virtual time, where no other program takes the processor."""
    monkeypatch.setattr("gymrail.models.pace.AT_ONCE_SECONDS", 0.0)  # a slow endpoint, played faster

    def thrashing(together: int) -> float:
        return 0.02 * max(1.0, together / 6) ** 2

    async def rate(model: OpenAIModel) -> float:
        started = time.monotonic()
        summary, _ = await play_many(model, 60, concurrency=24)
        assert summary.scored == 60
        return 60 / (time.monotonic() - started)

    async def run() -> None:
        fixed = EndpointSettings(max_concurrency=24)
        async with Capacity(thrashing) as server, OpenAIModel("m", server.url, settings=fixed) as model:
            drowning = await rate(model)
        async with Capacity(thrashing) as server, OpenAIModel("m", server.url) as model:
            await play_many(model, 25, concurrency=4)  # what it is like when it is well
            rates = [await rate(model) for _ in range(6)]
            assert model.load.limit < 18
        assert max(rates) > 1.5 * drowning

    asyncio.run(run())


def test_a_rate_limited_endpoint_fails_no_episode_whose_time_allows_waiting() -> None:
    async def run() -> None:
        server = Capacity(most=0, refusal_headers={"Retry-After-Ms": "50"})
        async with server, OpenAIModel("m", server.url, settings=EndpointSettings(max_retries=0)) as model:
            playing = asyncio.create_task(play_many(model, 20, concurrency=20))
            await asyncio.sleep(1.0)
            # All together were asked once and then paused, so they ask about once per pause and not once each.
            assert 20 <= server.refused < 60
            server.most = None
            summary, _ = await playing
            assert summary.scored == 20

    asyncio.run(run())


def test_an_episode_whose_time_runs_out_in_the_line_says_that_the_endpoint_is_saturated() -> None:
    async def run() -> None:
        settings = EndpointSettings(max_concurrency=1)
        async with Capacity(lambda _: 0.6) as server, OpenAIModel("m", server.url, settings=settings) as model:
            _, rollouts = await play_many(model, 3, concurrency=3, limits=Limits(episode_seconds=1.0))
            failures = [rollout.failure for rollout in rollouts if rollout.failure is not None]
            assert len(failures) >= 2
            assert any("is saturated: no request could be sent" in failure.message for failure in failures)
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
            await asyncio.wait_for(model.respond(REQUEST), 5)

    asyncio.run(run())
