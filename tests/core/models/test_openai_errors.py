"""What goes wrong at an endpoint: retried and counted, or raised as what it is, and never with the key in it."""

import asyncio
import email.utils
import logging
import re
import time
from dataclasses import replace
from typing import Any

import pytest

from gymrail.errors import ContextOverflow, InputError, ModelError
from gymrail.models.model import ModelRequest, ModelResponse
from gymrail.models.openai import EndpointSettings, OpenAIModel
from gymrail.models.refusals import retry_after_seconds
from gymrail.rollout import text_of
from tests.core.models.endpoint import Answer, Endpoint, chat, error, response, said

KEY = "sk-very-secret-0123456789"
QUICK = EndpointSettings(max_retries=3, first_wait_seconds=0.001, max_wait_seconds=0.05)
REQUEST = ModelRequest([{"role": "user", "content": "Hi"}])


def ask(
    *answers: Answer,
    settings: EndpointSettings = QUICK,
    request: ModelRequest = REQUEST,
    api: Any = "chat",
) -> tuple[ModelResponse | Exception, OpenAIModel, Endpoint]:
    """Send one request to an endpoint with these answers."""

    async def run() -> tuple[ModelResponse | Exception, OpenAIModel, Endpoint]:
        async with (
            Endpoint(answers) as endpoint,
            OpenAIModel("m", endpoint.url, api_key=KEY, api=api, settings=settings) as model,
        ):
            try:
                async with asyncio.timeout(120):
                    return await model.respond(request), model, endpoint
            except (ModelError, ContextOverflow, InputError) as problem:
                return problem, model, endpoint

    return asyncio.run(run())


def text(outcome: ModelResponse | Exception) -> str:
    assert isinstance(outcome, ModelResponse), outcome
    return text_of(outcome.items[-1])


@pytest.mark.parametrize(
    "trouble",
    [
        *(error(status, "busy") for status in (408, 409, 500, 502, 503, 504, 529)),
        Answer(trouble="disconnect"),
        Answer({"choices": []}, trouble="cut"),
        Answer(b"<html>gateway</html>"),
        Answer(b'{"choices": [{"mess'),
        Answer([1, 2]),
        Answer({}),
        Answer({"choices": []}),
        Answer({"choices": None}),
        Answer({"choices": ["x"]}),
        Answer({"choices": [{"message": None}]}),
        Answer({"choices": [{"message": {"content": 3.5}}]}),
        Answer({"error": {"message": "overloaded", "code": 503}}),
        Answer({"error": "provider gone"}),
        chat("half", finish_reason="abort"),
        chat("half", finish_reason="error"),
    ],
    ids=lambda answer: f"{answer.status}-{answer.trouble or str(answer.body)[:60]}",
)
def test_a_passing_trouble_is_retried_counted_and_logged(trouble: Answer, caplog: pytest.LogCaptureFixture) -> None:
    outcome, model, endpoint = ask(trouble, trouble, chat("Hello"))
    assert text(outcome) == "Hello"
    assert (model.retries, model.calls, len(endpoint.received)) == (2, 1, 3)
    lines = [record for record in caplog.records if record.name == "gymrail.models"]
    assert [line.levelno for line in lines] == [logging.WARNING] * 2
    assert "model m: retry 1 of 3 in 0.0" in lines[0].getMessage()


def test_a_busy_endpoint_takes_no_attempt_away_and_bounds_the_wait() -> None:
    busy = error(429, "slow down")
    outcome, model, endpoint = ask(*[busy] * 9, chat("Hello"))
    assert text(outcome) == "Hello"
    assert (model.retries, model.calls, len(endpoint.received)) == (9, 1, 10)
    outcome, model, _ = ask(*[busy] * 9, settings=replace(QUICK, busy_seconds=0))
    assert str(outcome).endswith("answered 429: slow down (after 4 attempts)")
    outcome, model, _ = ask(*[busy] * 99, settings=replace(QUICK, busy_seconds=0.1))
    assert isinstance(outcome, ModelError)
    assert re.search(r"answered 429: slow down \(for 0 seconds, \d+ attempts\)$|is saturated", str(outcome))
    outcome, model, _ = ask(*[busy] * 99, request=ModelRequest(REQUEST.input, timeout_seconds=0.2))
    assert isinstance(outcome, ModelError)
    assert "is saturated: no request could be sent within" in str(outcome)
    assert model.load.waiting == model.load.in_flight == 0


@pytest.mark.parametrize(
    "trouble",
    [
        Answer({}),
        Answer({"status": "completed", "output": []}),
        Answer({"status": "completed", "output": "text"}),
        Answer({"status": "completed", "output": ["text"]}),
        Answer({"status": "in_progress", "output": []}),
        Answer({"status": "failed", "error": {"code": "server_error", "message": "oops"}, "output": []}),
    ],
    ids=lambda answer: str(answer.body),
)
def test_a_responses_answer_that_is_none_is_retried(trouble: Answer) -> None:
    outcome, model, _ = ask(trouble, response(said("Hello")), api="responses")
    assert text(outcome) == "Hello"
    assert model.retries == 1


def test_a_failed_responses_answer_that_waiting_cannot_cure_is_not_retried() -> None:
    failed = {"status": "failed", "error": {"code": "invalid_prompt", "message": "we do not like it"}, "output": []}
    outcome, model, _ = ask(Answer(failed), api="responses")
    assert isinstance(outcome, ModelError)
    assert "we do not like it (invalid_prompt)" in str(outcome)
    assert model.retries == 0


def test_retries_are_bounded_and_the_error_says_how_often_and_why() -> None:
    outcome, model, endpoint = ask(*[error(503, "still loading")] * 9)
    assert isinstance(outcome, ModelError)
    assert str(outcome) == f"{endpoint.url} answered 503: still loading (after 4 attempts)"
    assert (model.retries, model.calls, len(endpoint.received)) == (3, 0, 4)


def test_garbage_that_stays_garbage_is_a_model_error() -> None:
    outcome, _, _ = ask(*[Answer(b"not json")] * 4)
    assert isinstance(outcome, ModelError)
    assert "no JSON object: b'not json' (after 4 attempts)" in str(outcome)


def test_an_attempt_that_takes_too_long_is_retried() -> None:
    # The answer has the same time as what hangs.
    enough = EndpointSettings(timeout_seconds=6, max_retries=1, first_wait_seconds=0.001)
    outcome, _, _ = ask(Answer(trouble="hang"), chat("Hello"), settings=enough)
    assert text(outcome) == "Hello"
    quick = replace(enough, timeout_seconds=0.1)
    outcome, _, endpoint = ask(*[Answer(trouble="hang")] * 2, settings=quick)
    assert isinstance(outcome, ModelError)
    assert str(outcome) == f"{endpoint.url} gave no answer within 0.1 seconds (after 2 attempts)"


def test_the_requests_own_limit_bounds_all_attempts_together() -> None:
    outcome, model, _ = ask(Answer(trouble="hang"), request=ModelRequest(REQUEST.input, timeout_seconds=0.2))
    assert isinstance(outcome, ModelError)
    assert "no time is left for another" in str(outcome)
    assert model.retries == 0
    slow = EndpointSettings(first_wait_seconds=3600, max_wait_seconds=3600)
    outcome, _, endpoint = ask(error(500, "x"), settings=slow, request=ModelRequest(REQUEST.input, timeout_seconds=60))
    assert isinstance(outcome, ModelError)
    assert len(endpoint.received) == 1


def test_retry_after_is_honoured_and_capped() -> None:
    patient = EndpointSettings(max_retries=1, first_wait_seconds=0.001)
    for headers in ({"Retry-After": "0.3"}, {"Retry-After-Ms": "300"}):
        started = time.monotonic()
        outcome, _, _ = ask(error(429, "slow down", headers=headers), chat("Hello"), settings=patient)
        assert text(outcome) == "Hello"
        assert time.monotonic() - started >= 0.3
    started = time.monotonic()
    outcome, _, _ = ask(error(429, "slow down", headers={"Retry-After": "3600"}), chat("Hello"), settings=QUICK)
    assert text(outcome) == "Hello"
    assert time.monotonic() - started < 1800  # not the hour that was asked for


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    later = email.utils.formatdate(time.time() + 30, usegmt=True)
    earlier = email.utils.formatdate(time.time() - 30, usegmt=True)
    values = [retry_after_seconds({"Retry-After": value}) for value in ("7", "soon", "-1", "nan", "inf", earlier)]
    assert values == [7.0, None, None, None, None, 0.0]
    seconds = retry_after_seconds({"Retry-After": later})
    assert seconds is not None
    assert 25 < seconds <= 30
    assert retry_after_seconds({}) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(400, "Invalid value for 'temperature'"), "answered 400: Invalid value for 'temperature'"),
        (error(401, "Incorrect API key"), "(the key was not accepted: pass api_key, or set OPENAI_API_KEY"),
        (error(403, "Country not supported"), "(the key was not accepted: pass api_key, or set OPENAI_API_KEY"),
        (error(404, "The model `m` does not exist"), "or the endpoint has no model 'm')"),
        (Answer({"detail": "Not Found"}, 404), "has no /chat/completions, and most endpoints' base_url ends in /v1"),
        (error(429, "You exceeded your quota", "insufficient_quota"), "waiting does not help"),
        (Answer({"detail": [{"loc": ["body", "n"], "msg": "bad"}]}, 422), '[{"loc":["body","n"],"msg":"bad"}]'),
        (Answer(b"<h1>Nope</h1>", 418), "answered 418: <h1>Nope</h1>"),
        (
            Answer(b"", 307, {"Location": "http://elsewhere/v1"}),
            "redirects to 'http://elsewhere/v1': use that as base_url",
        ),
        (Answer({"error": {"message": "bad field", "code": 400}}), "answered 400: bad field"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_is_not_retried_and_says_what_to_do(answer: Answer, expected: str) -> None:
    outcome, model, _ = ask(answer)
    assert type(outcome) is ModelError
    assert expected in str(outcome)
    assert model.retries == 0


def test_the_key_stands_in_no_error_log_line_or_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    header = "another-secret-value"
    settings = EndpointSettings(max_retries=1, first_wait_seconds=0.001, headers={"X-Team": header})
    quoting = error(500, f"key {KEY} and team {header} are overloaded")
    outcome, model, endpoint = ask(quoting, quoting, settings=settings)
    assert endpoint.received[0].headers["Authorization"] == f"Bearer {KEY}"
    assert endpoint.received[0].headers["X-Team"] == header
    refused, _, _ = ask(error(401, f"Incorrect key: {KEY}"))
    shown = " ".join([str(outcome), repr(outcome), repr(model), repr(settings), str(refused), caplog.text])
    assert "key [secret] and team [secret] are overloaded" in shown
    assert KEY not in shown
    assert header not in shown


def test_an_endpoint_that_is_not_there_is_retried_and_then_named() -> None:
    async def run() -> None:
        async with Endpoint([]) as endpoint:
            url = endpoint.url
        async with OpenAIModel("m", url, settings=QUICK) as model:
            with pytest.raises(ModelError, match=r"no connection \(.*refused.*\) \(after 4 attempts\)") as caught:
                await model.respond(REQUEST)
            assert url in str(caught.value)
            assert model.retries == 3

    asyncio.run(run())


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("localhost:8000/v1", "it must be an http"),
        ("ftp://x/v1", "it must be an http"),
        ("http://", "it must be an http"),
        ("http://x:99999/v1", "it must be an http"),
        ("http://x:port/v1", "it must be an http"),
        ("http://user:hidden@x/v1", "give 'http://x/v1'"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_at_once(base_url: str, expected: str) -> None:
    with pytest.raises(InputError, match="base_url") as caught:
        OpenAIModel("m", base_url)
    assert expected in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="extra_body sets 'messages'"):
        EndpointSettings(extra_body={"messages": []})
    with pytest.raises(InputError, match="timeout_seconds is 0"):
        EndpointSettings(timeout_seconds=0)
    with pytest.raises(InputError, match="max_retries is -1"):
        EndpointSettings(max_retries=-1)
    with pytest.raises(InputError, match="max_concurrency is 0"):
        EndpointSettings(max_concurrency=0)
    with pytest.raises(InputError, match="busy_seconds is -1"):
        EndpointSettings(busy_seconds=-1)
    with pytest.raises(InputError, match="api is 'grpc'"):
        OpenAIModel("m", api="grpc")  # pyright: ignore[reportArgumentType]


def test_check_passes_where_the_endpoint_serves_the_model_or_cannot_say() -> None:
    async def run(models: Answer) -> None:
        async with Endpoint([], models) as endpoint, OpenAIModel("m", endpoint.url) as model:
            await model.check()

    asyncio.run(run(Answer({"data": [{"id": "m"}, {"id": "n"}]})))
    asyncio.run(run(error(404, "no such route")))
    asyncio.run(run(Answer({"models": "many"})))
    asyncio.run(run(Answer({"data": [{"id": "/models/x.gguf", "owned_by": "llamacpp"}]})))


def test_check_says_what_is_wrong_before_a_run() -> None:
    async def run(models: Answer, name: str) -> None:
        async with Endpoint([], models) as endpoint, OpenAIModel(name, endpoint.url, api_key=KEY) as model:
            await model.check()

    served = Answer({"data": [{"id": "Qwen/Qwen3-0.6B"}, {"id": "Qwen/Qwen3-8B"}]})
    with pytest.raises(InputError, match=r"no model 'Qwen/Qwen3-0.6b'\. Did you mean 'Qwen/Qwen3-0.6B'\?"):
        asyncio.run(run(served, "Qwen/Qwen3-0.6b"))
    with pytest.raises(ModelError, match=r"the key was not accepted: pass api_key, or set OPENAI_API_KEY"):
        asyncio.run(run(error(401, f"bad key {KEY}"), "m"))
    with pytest.raises(ModelError, match=r"Is it running, and is base_url http://127"):
        asyncio.run(run(Answer(trouble="disconnect"), "m"))
