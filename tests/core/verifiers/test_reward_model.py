"""A reward model as a verifier: what becomes of its scores, and how served ones are asked."""

import asyncio
import math
from typing import Any

import pytest

from gymrail.errors import InputError, VerifierError
from gymrail.models.model import function_call, message
from gymrail.models.wire import EndpointSettings
from gymrail.verifiers.reward import reward_function
from gymrail.verifiers.reward_model import (
    Api,
    Chat,
    RewardEndpoint,
    RewardModel,
    RewardModelSettings,
    Squash,
    chat_of,
    squashed,
)
from gymrail.verifiers.verifier import Verifier
from tests.core.models.endpoint import Answer, Endpoint

CHAT = [{"role": "user", "content": "Capital of Norway?"}, {"role": "assistant", "content": "Oslo."}]
QUICK = EndpointSettings(max_retries=2, first_wait_seconds=0.001, max_wait_seconds=0.002)


class Fixed:
    """Gives one score, and keeps what it was asked."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.chats: list[Chat] = []
        self.is_closed = False

    async def score(self, chat: Chat) -> float:
        self.chats.append(chat)
        return self.value

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("score", "squash", "reward"),
    [
        (0.0, "sigmoid", 0.5),
        (2.0, "sigmoid", 1 / (1 + math.exp(-2))),
        (-800.0, "sigmoid", 0.0),
        (800.0, "sigmoid", 1.0),
        (3.0, "clip", 0.75),
        (-7.0, "clip", 0.0),
        (9.0, "clip", 1.0),
        (-7.0, "none", -7.0),
    ],
)
def test_a_score_becomes_a_reward(score: float, squash: Squash, reward: float) -> None:
    assert squashed(score, squash, 0.0, 4.0) == pytest.approx(reward)


def test_the_verifier_asks_for_the_answer_in_its_talk_and_reports_the_score() -> None:
    scorer = Fixed(2.0)
    verifier = RewardModel(scorer, "clip", 0.0, 4.0)
    assert isinstance(verifier, Verifier)
    verdict = asyncio.run(verifier("Oslo.", question="Capital of Norway?"))
    assert (verdict.reward, verdict.metrics) == (0.5, {"score": 2.0})
    assert scorer.chats == [CHAT]
    asyncio.run(
        verifier(
            "Oslo.", conversation=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "?"}]
        )
    )
    assert scorer.chats[1] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "Oslo."},
    ]
    asyncio.run(verifier.aclose())
    assert scorer.is_closed


def test_as_a_reward_function_a_completion_without_a_score_has_none() -> None:
    class Picky(Fixed):
        async def score(self, chat: Chat) -> float:
            if chat[-1]["content"] == "?":
                raise VerifierError("no room")
            return await super().score(chat)

    async def rewards() -> list[float | None]:
        return await reward_function(RewardModel(Picky(0.0)))(["a", "b"], ["c", "?"])

    assert asyncio.run(rewards()) == [0.5, None]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_a_failure_and_no_reward(value: float) -> None:
    with pytest.raises(VerifierError, match="finite"):
        asyncio.run(RewardModel(Fixed(value))("a", question="q"))


def test_what_cannot_be_used_is_refused_with_a_sentence() -> None:
    with pytest.raises(InputError, match="'question' or 'conversation'"):
        asyncio.run(RewardModel(Fixed(0))("a"))
    with pytest.raises(InputError, match="Did you mean 'sigmoid'"):
        RewardModel(Fixed(0), "sigmoidal")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="low must be the smaller"):
        RewardModel(Fixed(0), "clip", 1.0, 1.0)
    with pytest.raises(InputError, match="api is 'embed'"):
        RewardEndpoint("http://localhost", "m", api="embed")  # pyright: ignore[reportArgumentType]
    for settings in ({}, {"checkpoint": "a", "url": "http://b"}, {"url": "http://b"}):
        with pytest.raises(ValueError, match=r"either 'checkpoint' or 'url'|needs 'model_name'"):
            RewardModelSettings.model_validate(settings)


def test_a_talk_is_told_without_its_tool_calls() -> None:
    output = {"type": "function_call_output", "call_id": "c", "output": "12"}
    items = [
        {"role": "user", "content": "q"},
        message("Let me see."),
        function_call("f", "{}", "c"),
        output,
        message("12"),
    ]
    assert chat_of(items) == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Let me see.\n12"}]


POOLED = {"object": "list", "data": [{"index": 0, "object": "pooling", "data": [-1.5]}]}
BY_TOKEN = {"object": "list", "data": [{"index": 0, "object": "pooling", "data": [[0.1], [0.2], [-1.5]]}]}
CLASSIFIED = {"object": "list", "data": [{"index": 0, "label": "LABEL_0", "probs": [-1.5], "num_classes": 1}]}
SCORED = {"object": "list", "data": [{"index": 0, "object": "score", "score": -1.5}]}
MESSAGES = {"model": "rm", "messages": CHAT}


async def ask(answers: list[Answer], api: Api = "pooling", label: int | None = None) -> tuple[Any, Endpoint]:
    async with Endpoint(answers) as server:
        scorer = RewardEndpoint(server.url, "rm", api=api, label=label, settings=QUICK)
        try:
            return await scorer.score(CHAT), server
        except VerifierError as error:
            return error, server
        finally:
            await scorer.aclose()


@pytest.mark.parametrize(
    ("api", "body", "path", "sent"),
    [
        ("pooling", POOLED, "/pooling", MESSAGES),
        ("pooling", BY_TOKEN, "/pooling", MESSAGES),
        ("classify", CLASSIFIED, "/classify", {**MESSAGES, "use_activation": False}),
        ("score", SCORED, "/score", {"model": "rm", "text_1": "Capital of Norway?", "text_2": "Oslo."}),
    ],
)
def test_a_served_model_is_asked_by_its_route(api: Api, body: dict[str, Any], path: str, sent: dict[str, Any]) -> None:
    score, server = asyncio.run(ask([Answer(body)], api))
    assert score == -1.5
    (received,) = server.received
    assert (received.path, received.body) == (path, sent)


def test_one_of_several_outputs_is_named() -> None:
    two = {"data": [{"probs": [0.25, 4.0]}]}
    assert asyncio.run(ask([Answer(two)], "classify", 1))[0] == 4.0
    error, _ = asyncio.run(ask([Answer(two)], "classify"))
    assert "gives 2 numbers" in str(error)
    error, _ = asyncio.run(ask([Answer(two)], "classify", 2))
    assert "label is 2" in str(error)


def test_trouble_is_tried_again_and_no_more_often_than_the_settings_say() -> None:
    score, server = asyncio.run(ask([Answer(status=503), Answer(trouble="disconnect"), Answer(POOLED)]))
    assert (score, len(server.received)) == (-1.5, 3)
    error, server = asyncio.run(ask([Answer(status=500)] * 5))
    assert isinstance(error, VerifierError)
    assert len(server.received) == 3


@pytest.mark.parametrize(
    "body",
    [{}, {"data": []}, {"data": [{"data": []}]}, {"data": [{"data": ["x"]}]}, {"data": [{"data": "AAAA"}]}, [1]],
)
def test_an_answer_of_another_shape_is_a_failure_and_no_score(body: Any) -> None:
    error, _ = asyncio.run(ask([Answer(body)] * 3))
    assert isinstance(error, VerifierError)


def test_a_talk_that_is_too_long_for_the_served_model_is_a_failure() -> None:
    said = {"error": {"message": "This model's maximum context length is 512 tokens.", "code": 400}}
    error, server = asyncio.run(ask([Answer(said, status=400)] * 3))
    assert "maximum context length" in str(error)
    assert len(server.received) == 1


def test_the_key_comes_from_the_variable_that_the_settings_name(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RewardModelSettings(url="http://localhost:1", model_name="rm", api_key_env="RM_KEY")
    monkeypatch.delenv("RM_KEY", raising=False)
    with pytest.raises(InputError, match="export RM_KEY="):
        settings.build()

    async def sent(**named: Any) -> str | None:
        async with Endpoint([Answer(POOLED)]) as server:
            scorer = RewardModelSettings(url=server.url, model_name="rm", **named).build()
            await scorer.score(CHAT)
            await scorer.aclose()
            return server.received[0].headers.get("Authorization")

    monkeypatch.setenv("RM_KEY", "a secret key")
    monkeypatch.setenv("OPENAI_API_KEY", "somebody else's")
    assert asyncio.run(sent(api_key_env="RM_KEY")) == "Bearer a secret key"
    assert asyncio.run(sent()) is None
