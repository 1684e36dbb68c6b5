"""The judge over HTTP: a real endpoint on a loopback port that refuses, hangs, breaks and talks nonsense."""

import asyncio
from typing import Any

import pytest

from gymrail.errors import VerifierError
from gymrail.limits import Prices
from gymrail.verifiers.judge import Judge, JudgeSettings
from tests.core.models.endpoint import Answer, Endpoint, Received, chat, error
from tests.core.verifiers.judges import DIFFERENT, EQUAL

ROW = {"question": "What is the capital of Italy?", "expected_answer": "Rome"}
BOTH = ("expected_answer", "answer")


def judge_at(endpoint: Endpoint, *, swap: tuple[str, str] | None = None, **settings: Any) -> Judge:
    return JudgeSettings(model=endpoint.url, model_name="m", **settings).judge(swap=swap)


def judged(script: Any, answer: str = "Rome", **settings: Any) -> tuple[float | str, Endpoint]:
    """The reward, or what the failure says."""

    async def main() -> tuple[float | str, Endpoint]:
        async with Endpoint(script) as endpoint:
            judge = judge_at(endpoint, **settings)
            try:
                return (await judge(answer, **ROW)).reward, endpoint
            except VerifierError as failure:
                return str(failure), endpoint
            finally:
                await judge.aclose()

    return asyncio.run(main())


def test_a_verdict_comes_over_http_and_the_request_says_what_is_set() -> None:
    reward, endpoint = judged([chat(f"Same. {EQUAL}"), chat(EQUAL)], swap=BOTH, parameters={"temperature": 0.5})
    assert reward == 1.0
    assert [body["temperature"] for body in endpoint.bodies] == [0.5, 0.5]
    assert [message["role"] for message in endpoint.bodies[0]["messages"]] == ["system", "user"]


def test_a_busy_endpoint_is_waited_for_as_long_as_it_asks() -> None:
    busy = error(429, "slow down", headers={"Retry-After": "0.05"})
    reward, endpoint = judged([busy, busy, chat(DIFFERENT)])
    assert reward == 0.0
    assert len(endpoint.received) == 3


def test_an_endpoint_that_stays_busy_is_a_failure_within_the_time_limit() -> None:
    failure, _ = judged(lambda received: error(429, "slow down", headers={"Retry-After": "30"}), timeout_seconds=0.5)
    assert "The judge" in str(failure)


def test_an_endpoint_that_fails_is_tried_again_then_a_failure() -> None:
    assert judged([error(500, "broken"), chat(EQUAL)])[0] == 1.0
    failure, endpoint = judged(lambda received: error(500, "broken"), max_retries=1)
    assert "The judge failed" in str(failure)
    assert len(endpoint.received) == 2


def test_an_endpoint_that_hangs_is_a_failure_within_the_time_limit() -> None:
    failure, _ = judged([Answer(trouble="hang")], timeout_seconds=0.3)
    assert "The judge" in str(failure)


@pytest.mark.parametrize("text", ["", "I would rather not say.", "[[A=", "[[A==B]]", "{}", None])
def test_malformed_verdicts_are_asked_for_again_and_then_a_failure(text: str | None) -> None:
    failure, endpoint = judged(lambda received: chat(text), retries=1)
    assert "no verdict in 2 answers" in str(failure)
    assert len(endpoint.received) == 2
    assert judged([chat(text), chat(EQUAL)], retries=1)[0] == 1.0


def test_an_answer_that_was_cut_off_before_its_label_is_no_verdict() -> None:
    failure, _ = judged(lambda received: chat("Let me think about", finish_reason="length"), retries=0)
    assert "no verdict" in str(failure)


def test_the_endpoints_usage_is_what_the_cost_limit_counts() -> None:
    async def main() -> tuple[float, int]:
        async with Endpoint(lambda received: chat(EQUAL)) as endpoint:  # 10 tokens in, 3 out
            judge = judge_at(endpoint, prices=Prices(1.0, 10.0), cost_limit=0.00004)
            await judge("Rome", **ROW)
            with pytest.raises(VerifierError, match="cost_limit"):
                await judge("Rome", **ROW)
            await judge.aclose()
            return judge.spending.cost, len(endpoint.received)

    cost, asked = asyncio.run(main())
    assert cost == pytest.approx(0.00004)
    assert asked == 1


def test_the_endpoint_never_sees_more_requests_at_once_than_the_limit() -> None:
    async def main() -> int:
        running = most = 0
        turn = asyncio.Condition()

        async def handle(endpoint: Endpoint, request: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            async with turn:
                if running == 3:
                    turn.notify_all()
                await asyncio.wait_for(turn.wait_for(lambda: most == 3), 120)
            try:
                return await Endpoint._handle(endpoint, request)
            finally:
                running -= 1

        class Counting(Endpoint):
            async def _handle(self, request: Any) -> Any:
                return await handle(self, request)

        async with Counting(lambda received: chat(EQUAL)) as endpoint:
            judge = judge_at(endpoint, max_concurrency=3, swap=BOTH)
            verdicts = await asyncio.gather(*(judge("Rome", **ROW) for _ in range(20)))
            await judge.aclose()
        assert {verdict.reward for verdict in verdicts} == {1.0}
        return most

    assert asyncio.run(main()) == 3


def test_cancelling_a_verdict_ends_its_request_and_the_judge_goes_on() -> None:
    async def main() -> float:
        hung = asyncio.Event()

        def answer(received: Received) -> Answer:
            if not hung.is_set():
                hung.set()
                return Answer(trouble="hang")
            return chat(EQUAL)

        async with Endpoint(answer) as endpoint:
            judge = judge_at(endpoint, max_concurrency=1)
            asking = asyncio.ensure_future(judge("Rome", **ROW))
            await asyncio.wait_for(hung.wait(), 120)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            reward = (await asyncio.wait_for(judge("Rome", **ROW), 120)).reward
            await judge.aclose()
            return reward

    assert asyncio.run(main()) == 1.0


def test_the_key_is_sent_and_stands_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret-key")
    refused = error(401, "wrong key sk-very-secret-key")
    failure, endpoint = judged([refused], api_key_env="JUDGE_KEY")
    assert endpoint.received[0].headers["Authorization"] == "Bearer sk-very-secret-key"
    assert "sk-very-secret-key" not in str(failure)
    assert "JUDGE_KEY" in str(failure)
