"""One model at several URLs: where episodes go, what a URL that breaks costs, and how it comes back."""

import asyncio
import logging
import socket
from collections import Counter
from dataclasses import replace

import pytest

from gymrail.errors import InputError, ModelError
from gymrail.models.build import build_model
from gymrail.models.completions import CompletionsSampler
from gymrail.models.fleet import Fleet
from gymrail.models.model import ModelRequest
from gymrail.models.openai import EndpointSettings, OpenAIModel
from gymrail.models.token_model import DEFAULT_SAMPLING
from tests.core.models.capacity import Capacity, play_many
from tests.core.models.endpoint import Answer, Endpoint

QUICK = EndpointSettings(first_wait_seconds=0.02, max_wait_seconds=0.2, timeout_seconds=60)
REQUEST = ModelRequest([{"role": "user", "content": "Hi"}])


def model_at(*servers: Capacity, settings: EndpointSettings = QUICK) -> OpenAIModel:
    return OpenAIModel("m", ",".join(server.url for server in servers), settings=settings)


async def until_up(model: OpenAIModel) -> None:
    fleet = model._endpoint
    assert isinstance(fleet, Fleet)
    async with asyncio.timeout(120):
        while fleet.down:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_an_episode_stays_where_it_began_and_the_faster_url_gets_more() -> None:
    async def run() -> None:
        async with Capacity(lambda _: 0.005) as fast, Capacity(lambda _: 0.25) as slow, model_at(fast, slow) as model:
            summary, _ = await play_many(model, 120, concurrency=12)
            assert summary.scored == 120
            counts = [Counter(server.by_first_message) for server in (fast, slow)]
            assert {*counts[0].values(), *counts[1].values()} == {3}, "an episode changed its URL"
            assert fast.answered > 1.5 * slow.answered > 0
            assert model.calls == 360
            assert list(model.loads) == [fast.url, slow.url]

    asyncio.run(run())


def test_a_url_that_refuses_gets_what_it_bears_and_the_other_the_rest() -> None:
    async def run() -> None:
        async with Capacity(most=4) as small, Capacity() as large, model_at(small, large) as model:
            summary, _ = await play_many(model, 200, concurrency=32)
            assert summary.scored == 200
            assert large.answered > small.answered > 20
            assert model.loads[small.url].limit <= 16

    asyncio.run(run())


def test_a_url_that_is_killed_in_the_middle_fails_no_rollout_and_is_used_again_when_it_is_back() -> None:
    async def run() -> None:
        async with Capacity(lambda _: 0.02) as one, Capacity(lambda _: 0.02) as two, model_at(one, two) as model:
            playing = asyncio.create_task(play_many(model, 300, concurrency=16))
            async with asyncio.timeout(120):
                while one.answered < 40:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            await one.stop()
            await asyncio.sleep(0.2)
            await one.start()
            summary, _ = await playing
            assert summary.scored == 300
            await until_up(model)
            before = one.answered
            await play_many(model, 40, concurrency=16)
            assert one.answered > before + 20
            assert model.retries > 0

    asyncio.run(run())


def test_a_url_that_answers_only_errors_is_done_without() -> None:
    async def run() -> None:
        async with Capacity() as one, Capacity() as two, model_at(one, two) as model:
            one.broken_with = 500
            summary, _ = await play_many(model, 40, concurrency=8)
            assert summary.scored == 40
            assert (one.answered, two.answered) == (0, 120)

    asyncio.run(run())


def test_a_short_outage_of_all_urls_is_waited_for() -> None:
    async def run() -> None:
        settings = replace(QUICK, first_wait_seconds=0.2, max_wait_seconds=1.0)
        async with Capacity() as one, Capacity() as two, model_at(one, two, settings=settings) as model:
            await one.stop()
            await two.stop()
            playing = asyncio.create_task(model.respond(REQUEST))
            await asyncio.sleep(0.3)
            await two.start()
            await asyncio.wait_for(playing, 120)

    asyncio.run(run())


def test_when_all_urls_are_down_one_error_names_them_all() -> None:
    async def run() -> None:
        async with Capacity() as one, Capacity() as two:
            urls = (one.url, two.url)
        async with OpenAIModel("m", ",".join(urls), settings=replace(QUICK, max_retries=2)) as model:
            for ask in (model.respond(REQUEST), model.check(), model.list_models()):
                with pytest.raises(ModelError, match="None of the 2 model URLs") as caught:
                    await asyncio.wait_for(ask, 120)
                assert all(f"{url}: " in str(caught.value) for url in urls)
                assert "refused" in str(caught.value)
            summary, rollouts = await play_many(model, 2, concurrency=2)
            assert summary.failed == 2
            assert {rollout.failure.kind for rollout in rollouts if rollout.failure} == {"model"}

    asyncio.run(run())


def test_a_url_that_hangs_is_left_for_another_within_the_call() -> None:
    async def run() -> None:
        settings = replace(QUICK, timeout_seconds=6, max_retries=0)  # the other URL answers within it
        async with (
            Endpoint(lambda _: Answer(trouble="hang")) as hanging,
            Capacity() as well,
            OpenAIModel("m", f"{hanging.url},{well.url}", settings=settings) as model,
        ):
            for _ in range(3):
                await asyncio.wait_for(model.respond(REQUEST), 120)
            assert well.answered == 3

    asyncio.run(run())


def test_a_refusal_is_not_asked_of_another_url() -> None:
    async def run() -> None:
        async with Capacity() as one, Capacity() as two, model_at(one, two) as model:
            one.broken_with = two.broken_with = 401
            with pytest.raises(ModelError, match="the key was not accepted"):
                await model.respond(REQUEST)
            assert model.retries == 0

    asyncio.run(run())


def test_check_warns_of_the_urls_that_are_down_and_refuses_one_that_serves_another_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        async with Capacity() as one, Capacity(model="n") as other:
            async with Capacity() as gone:
                pass
            async with model_at(one, gone) as model:
                await model.check()
                (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
                assert line.startswith(f"1 of 2 model URLs are down: {gone.url}: No answer from the endpoint")
                assert await model.list_models() == ["m"]
                await model.respond(REQUEST)
                assert one.answered == 1
            async with model_at(one, other) as model:
                with pytest.raises(InputError, match=f"{other.url} serves no model 'm'"):
                    await model.check()

    asyncio.run(run())


def test_health_checks_end_with_the_model_and_begin_again_on_another_event_loop() -> None:
    held = socket.socket()  # bound and not listening: the port refuses, and nobody else gets it
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port = held.getsockname()[1]

    async def check(model: OpenAIModel) -> None:
        async with Capacity():
            await model.check()
            assert [task for task in asyncio.all_tasks() if task.get_name().startswith("health of")]
            await model.close()
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("health of")]

    async def use(model: OpenAIModel, returned: Capacity) -> None:
        async with returned:
            await model.respond(REQUEST)
            await until_up(model)
            await model.close()

    async def make() -> tuple[OpenAIModel, Capacity, Capacity]:
        up, down = Capacity(), Capacity()
        down.port = port
        async with up:
            model = OpenAIModel("m", f"{up.url},http://127.0.0.1:{port}/v1", settings=QUICK)
            await check(model)
        return model, up, down

    async def again(model: OpenAIModel, up: Capacity, down: Capacity) -> None:
        async with up:
            await use(model, down)

    with held:
        parts = asyncio.run(make())
        asyncio.run(again(*parts))


def test_token_ids_are_sampled_from_several_urls_too() -> None:
    body = {"choices": [{"token_ids": [5], "logprobs": {"token_logprobs": [-0.5]}, "finish_reason": "stop"}]}

    async def run() -> None:
        async with Endpoint(lambda _: Answer(body)) as up, Capacity() as gone:
            await gone.stop()
            async with CompletionsSampler(f"{gone.url}, {up.url}", "m", settings=QUICK) as sampler:
                sample = await sampler.sample([1, 2], DEFAULT_SAMPLING)
                assert (sample.token_ids, sampler.load.in_flight) == ([5], 0)

    asyncio.run(run())


def test_a_text_names_several_urls() -> None:
    model = build_model("http://a/v1, http://b/v1", model_name="m")
    assert isinstance(model, OpenAIModel)
    assert "http://a/v1,http://b/v1" in repr(model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://a/v1,", "an address is empty"),
        ("http://a/v1,http://a/v1", "stands there twice"),
        ("http://a/v1,b:8000/v1", "it must be an http"),
    ],
)
def test_urls_that_make_no_fleet_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model(text, model_name="m")
