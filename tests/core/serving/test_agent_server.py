"""The agent server before a trainer that speaks NeMo Gym's protocol."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from gymrail.agents.tool_loop import ToolLoop
from gymrail.environment import call
from gymrail.errors import ModelError
from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.registry import find
from gymrail.serving.agent import create_agent_app
from gymrail.serving.loopback import serve_on_loopback
from gymrail.serving.settings import Settings

KEY = "k" * 20
Post = Callable[..., Awaitable[tuple[int, Any]]]


def ask(
    question: Callable[[Post], Awaitable[Any]],
    *names: str,
    model: Any = None,
    key: str | None = None,
    sent: str | None = None,
) -> Any:
    settings = Settings.for_address("127.0.0.1", key=key, is_open=key is None)
    app = create_agent_app([find(name) for name in names], model or Oracle(), ToolLoop(), settings)
    headers = {"Authorization": f"Bearer {sent}"} if sent else {}

    async def run() -> Any:
        async with (
            serve_on_loopback(app) as url,
            aiohttp.ClientSession(headers=headers) as session,
            asyncio.timeout(300),
        ):

            async def post(path: str, body: Any) -> tuple[int, Any]:
                async with session.post(url + path, json=body) as response:
                    return response.status, await response.json()

            return await question(post)

    return asyncio.run(run())


def rows(name: str, count: int) -> list[dict[str, Any]]:
    return [{**task.row, "_ng_task_index": index} for index, task in enumerate(find(name).tasks("train", limit=count))]


def test_a_row_comes_back_judged_with_every_field_it_had() -> None:
    (row,) = rows("session_counter", 1)
    row["note"] = "kept"

    async def question(post: Post) -> Any:
        return await post("/run", row)

    status, answer = ask(question, "session_counter")
    assert (status, answer["reward"], answer["note"], answer["_ng_task_index"]) == (200, 1.0, "kept", 0)
    assert [item["type"] for item in answer["response"]["output"]] == [
        "function_call", "function_call_output", "function_call", "function_call_output", "message",
    ]  # fmt: skip
    assert answer["responses_create_params"] == row["responses_create_params"]


def test_rows_of_several_environments_find_their_own_by_agent_ref() -> None:
    sent = [(name, row) for name in ("session_counter", "treasure_hunt") for row in rows(name, 2)]

    async def question(post: Post) -> Any:
        asked = [
            post("/run", {**row, "agent_ref": {"type": "responses_api_agents", "name": f"{name}_simple_agent"}})
            for name, row in sent
        ]
        return (
            await asyncio.gather(*asked),
            await post("/run", sent[0][1]),
            await post("/treasure_hunt/run", sent[2][1]),
        )

    answers, unnamed, by_path = ask(question, "session_counter", "treasure_hunt")
    assert [(status, answer["reward"]) for status, answer in answers] == [(200, 1.0)] * 4
    assert [answer["gymrail"]["environment"] for _, answer in answers] == [name for name, _ in sent]
    assert unnamed[0] == 422
    assert "no agent_ref.name" in unnamed[1]["error"]["message"]
    assert (by_path[0], by_path[1]["reward"]) == (200, 1.0)


def test_a_failure_is_a_server_error_without_a_reward_or_its_reason() -> None:
    class Broken:
        async def respond(self, request: ModelRequest) -> ModelResponse:
            raise ModelError("key sk-123 was refused")

    async def question(post: Post) -> Any:
        return await post("/run", rows("session_counter", 1)[0])

    status, answer = ask(question, "session_counter", model=Broken())
    assert status == 500
    assert answer["error"]["kind"] == "model"
    assert "reward" not in answer
    assert "sk-123" not in str(answer)


def test_a_bad_row_is_the_callers_mistake() -> None:
    async def question(post: Post) -> Any:
        return await post("/run", {"responses_create_params": {"input": "Hi"}})

    status, answer = ask(question, "session_counter")
    assert status == 422
    assert "initial_count" in answer["error"]["message"]


def test_a_truncated_episode_says_so_and_has_the_reward_of_its_state() -> None:
    (row,) = rows("session_counter", 1)

    async def question(post: Post) -> Any:
        return await post("/run", row)

    status, answer = ask(question, "session_counter", model=ScriptedModel(lambda request: call("get_counter_value")))
    assert (status, answer["reward"], answer["response"]["incomplete_details"]) == (200, 0.0, {"reason": "max_steps"})


def test_token_ids_travel_to_the_trainer_and_each_prompt_starts_with_all_that_was_before() -> None:
    class Sampling:
        async def respond(self, request: ModelRequest) -> ModelResponse:
            is_second = any(item.get("type") == "function_call_output" for item in request.input)
            item = message("Done.") if is_second else function_call("get_counter_value", "{}", "c")
            prompt, sampled = ([1, 2, 3, 4], [5]) if is_second else ([1], [2, 3])
            tokens = {
                "prompt_token_ids": prompt,
                "generation_token_ids": sampled,
                "generation_log_probs": [-0.5] * len(sampled),
            }
            return ModelResponse([{**item, **tokens}])

    async def question(post: Post) -> Any:
        return await post("/run", rows("session_counter", 1)[0])

    _, answer = ask(question, "session_counter", model=Sampling())
    seen: list[int] = []
    for item in answer["response"]["output"]:
        if "generation_token_ids" in item:
            assert item["prompt_token_ids"][: len(seen)] == seen
            seen = item["prompt_token_ids"] + item["generation_token_ids"]
    assert seen == [1, 2, 3, 4, 5]


def test_the_key_is_asked_for_and_an_open_server_takes_everybody() -> None:
    async def question(post: Post) -> Any:
        return [(await post(path, rows("session_counter", 1)[0]))[0] for path in ("/run", "/aggregate_metrics")]

    assert ask(question, "session_counter", key=KEY) == [401, 401]
    assert ask(question, "session_counter", key=KEY, sent="x" * 20) == [401, 401]
    assert ask(question, "session_counter", key=KEY, sent=KEY) == [200, 422]


def test_a_responses_request_gives_every_item_of_the_episode_and_no_reward() -> None:
    script = ScriptedModel([call("get_weather", city="Oslo"), "It is fine."])
    row = rows("single_tool", 1)[0]

    async def question(post: Post) -> Any:
        return await post("/v1/responses", {"model": "any", **row["responses_create_params"]})

    status, answer = ask(question, "single_tool", model=script)
    assert status == 200
    assert [item["type"] for item in answer["output"]] == ["function_call", "function_call_output", "message"]
    assert "reward" not in answer


def test_metrics_are_made_of_the_answers() -> None:
    sent = rows("session_counter", 3)

    async def question(post: Post) -> Any:
        answers = [(await post("/run", row))[1] for row in sent]
        return await post("/aggregate_metrics", {"verify_responses": answers})

    status, metrics = ask(question, "session_counter")
    assert status == 200
    assert math.isclose(metrics["agent_metrics"]["mean/reward"], 1.0)
    assert len(metrics["group_level_metrics"]) == 3
