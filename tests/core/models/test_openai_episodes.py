"""Whole episodes over HTTP: tools, failures, many at once, proxies, event loops."""

import asyncio
import json
from typing import Any

import pytest

from gymrail import Environment, Rollout, Task, Verdict, tool
from gymrail.models.model import ModelRequest
from gymrail.models.openai import EndpointSettings, OpenAIModel
from gymrail.play import play
from gymrail.rollout import Usage
from gymrail.spec import EnvironmentSpec
from tests.core.models.endpoint import (
    Answer,
    Endpoint,
    Received,
    Script,
    called,
    chat,
    chat_call,
    error,
    response,
    said,
)

QUICK = EndpointSettings(max_retries=2, first_wait_seconds=0.001, timeout_seconds=60)
REQUEST = ModelRequest([{"role": "user", "content": "Hi"}])


class Sum(Environment[Task]):
    """Add two numbers, both of which must be asked for at the same time."""

    async def seed(self) -> None:
        self.asked = 0
        self.both_asked = asyncio.Event()

    @tool
    async def number(self, name: str) -> int:
        """Tell a number."""
        self.asked += 1
        if self.asked == 2:
            self.both_asked.set()
        await asyncio.wait_for(self.both_asked.wait(), 120)
        return {"a": 20, "b": 22}[name]

    def reply(self, rollout: Rollout) -> str | None:
        return "Are you sure?" if len(rollout.answers) == 1 else None

    async def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(reward=float(rollout.final_text == "Yes, 42."))


SPEC = EnvironmentSpec("sum", Sum)
TASK = Task.ask("What is a + b?", system="Use the tools.", parameters={"temperature": 0.7, "max_output_tokens": 99})
CHAT = [
    chat(
        None,
        chat_call("c1", "number", {"name": "a"}),
        chat_call("c2", "number", {"name": "b"}),
        reasoning_content="ask both",
    ),
    chat("42"),
    chat("Yes, 42."),
]
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "ask both"}]}
RESPONSES = [
    response(REASONING, called("c1", "number", {"name": "a"}), called("c2", "number", {"name": "b"})),
    response(said("42")),
    response(said("Yes, 42.")),
]


def play_once(script: Script, api: Any, settings: EndpointSettings = QUICK) -> tuple[Rollout, Endpoint]:
    async def run() -> tuple[Rollout, Endpoint]:
        async with Endpoint(script) as endpoint, OpenAIModel("m", endpoint.url, api=api, settings=settings) as model:
            async with asyncio.timeout(120):
                return await play(SPEC, TASK, model), endpoint

    return asyncio.run(run())


def test_an_episode_over_chat_completions_runs_its_tools_together_and_keeps_the_reasoning() -> None:
    rollout, endpoint = play_once(CHAT, "chat")
    assert (rollout.reward, rollout.steps, rollout.usage, rollout.model) == (1.0, 3, Usage(30, 9), "served")
    assert [(call.call_id, call.output) for call in rollout.calls] == [("c1", "20"), ("c2", "22")]
    assert endpoint.bodies[-1]["messages"] == [
        {"role": "system", "content": "Use the tools."},
        {"role": "user", "content": "What is a + b?"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "ask both",
            "tool_calls": [chat_call("c1", "number", '{"name": "a"}'), chat_call("c2", "number", '{"name": "b"}')],
        },
        {"role": "tool", "tool_call_id": "c1", "name": "number", "content": "20"},
        {"role": "tool", "tool_call_id": "c2", "name": "number", "content": "22"},
        {"role": "assistant", "content": "42"},
        {"role": "user", "content": "Are you sure?"},
    ]
    assert (endpoint.bodies[-1]["temperature"], endpoint.bodies[-1]["max_tokens"]) == (0.7, 99)
    (offered,) = endpoint.bodies[-1]["tools"]
    assert (offered["type"], offered["function"]["name"], offered["function"]["strict"]) == ("function", "number", True)


def test_an_episode_over_the_responses_api_runs_its_tools_together_and_keeps_the_reasoning() -> None:
    rollout, endpoint = play_once(RESPONSES, "responses")
    assert (rollout.reward, rollout.steps, rollout.usage, rollout.model) == (1.0, 3, Usage(30, 9), "served")
    assert endpoint.bodies[-1]["input"] == [
        {"role": "system", "content": "Use the tools."},
        {"role": "user", "content": "What is a + b?"},
        REASONING,
        called("c1", "number", {"name": "a"}),
        called("c2", "number", {"name": "b"}),
        {"type": "function_call_output", "call_id": "c1", "output": "20"},
        {"type": "function_call_output", "call_id": "c2", "output": "22"},
        said("42"),
        {"type": "message", "role": "user", "content": "Are you sure?"},
    ]
    assert (endpoint.bodies[-1]["temperature"], endpoint.bodies[-1]["max_output_tokens"]) == (0.7, 99)
    assert [schema["name"] for schema in endpoint.bodies[-1]["tools"]] == ["number"]


@pytest.mark.parametrize(
    "trouble",
    [
        error(500, "boom"),
        Answer(trouble="disconnect"),
        Answer(b"garbage"),
        Answer({}),
        Answer(trouble="hang"),
        error(401, "who?"),
    ],
    ids=lambda answer: f"{answer.status}-{answer.trouble}-{answer.body}",
)
def test_an_endpoint_that_breaks_makes_the_rollout_failed_by_the_model_and_never_scored(trouble: Answer) -> None:
    # Only what hangs may take too long; where the first answer does, it is given again.
    settings = EndpointSettings(
        max_retries=1, first_wait_seconds=0.001, timeout_seconds=1.0 if trouble.trouble == "hang" else 60.0
    )
    rollout, _ = play_once(
        lambda received: CHAT[0] if len(received.body["messages"]) == 2 else trouble, "chat", settings
    )
    assert rollout.outcome is not None
    assert rollout.outcome.status == "failed"
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage) == ("model", "model")
    assert rollout.reward is None
    assert rollout.steps == 1


def test_a_context_overflow_ends_the_episode_as_truncated() -> None:
    rollout, _ = play_once([CHAT[0], error(400, "This model's maximum context length is 4096 tokens.")], "chat")
    assert rollout.outcome is not None
    assert (rollout.outcome.status, rollout.outcome.reason) == ("truncated", "context")
    assert rollout.reward == 0.0


def test_an_answer_that_was_cut_off_ends_the_episode_as_truncated() -> None:
    rollout, _ = play_once([chat("4", finish_reason="length")], "chat")
    assert rollout.outcome is not None
    assert (rollout.outcome.status, rollout.outcome.reason) == ("truncated", "max_output_tokens")


def test_two_hundred_episodes_share_their_connections_and_do_not_mix() -> None:
    def answer(received: Received) -> Answer:
        messages = received.body["messages"]
        mine = json.loads(messages[-1]["content"])["n"] if len(messages) == 1 else int(messages[-1]["content"])
        return chat(f"{mine}") if len(messages) >= 3 else chat(None, chat_call("c", "double", {"n": mine}))

    class Double(Environment[Task]):
        @tool
        def double(self, n: int) -> int:
            """Double a number."""
            return 2 * n

        def verify(self, rollout: Rollout) -> float:
            return float(rollout.final_text == str(2 * rollout.task_index))

    async def run() -> list[Rollout]:
        spec = EnvironmentSpec("double", Double)
        async with Endpoint(answer) as endpoint, OpenAIModel("m", endpoint.url, settings=QUICK) as model:
            playing = [play(spec, Task.ask(json.dumps({"n": n})), model, task_index=n) for n in range(200)]
            async with asyncio.timeout(120):
                rollouts = await asyncio.gather(*playing)
            assert (model.calls, model.retries, len(endpoint.received)) == (400, 0, 400)
            assert len(endpoint.peers) < 300, "connections are not used again"
            return rollouts

    assert [rollout.reward for rollout in asyncio.run(run())] == [1.0] * 200


def test_a_model_serves_one_event_loop_after_another() -> None:
    async def run(model: OpenAIModel | None, port: int) -> tuple[OpenAIModel, int]:
        async with Endpoint([chat("ok")], port=port) as endpoint:
            model = model or OpenAIModel("m", endpoint.url)
            async with model:
                await model.respond(REQUEST)
            return model, int(endpoint.url.removesuffix("/v1").rpartition(":")[2])

    model, port = asyncio.run(run(None, 0))
    again, _ = asyncio.run(run(model, port))
    assert again is model
    assert (model.calls, model.retries) == (2, 0)


def test_a_closed_model_opens_again_when_it_is_used() -> None:
    async def run() -> None:
        async with Endpoint([chat("ok"), chat("ok")]) as endpoint, OpenAIModel("m", endpoint.url) as model:
            await model.respond(REQUEST)
            await model.close()
            await model.close()
            await model.respond(REQUEST)
            assert model.calls == 2

    asyncio.run(run())


def test_a_proxy_of_the_environment_is_used_and_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def run() -> None:
        async with Endpoint([chat("through")]) as proxy, Endpoint([chat("direct")]) as endpoint:
            monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
            async with OpenAIModel("m", "http://model.invalid/v1", settings=QUICK) as model:
                assert "through" in str(await model.respond(REQUEST))
            assert proxy.received[0].headers["Host"] == "model.invalid"
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            async with OpenAIModel("m", endpoint.url, settings=QUICK) as model:
                assert "direct" in str(await model.respond(REQUEST))
            assert (len(proxy.received), len(endpoint.received)) == (1, 1)

    asyncio.run(run())


def test_a_proxy_that_cannot_be_used_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "ftp://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")

    async def run() -> None:
        async with OpenAIModel("m", "http://model.invalid/v1") as model:
            await model.respond(REQUEST)

    with pytest.raises(Exception, match="names a 'ftp' proxy"):
        asyncio.run(run())
