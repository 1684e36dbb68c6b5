"""The agent server for a trainer that takes every answer: failures are masked, and what has no tokens is no row."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from gymrail import Environment, Rollout, Task, tool
from gymrail.agents.tool_loop import ToolLoop
from gymrail.errors import InputError, ModelError
from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.models.trained import trained_model
from gymrail.serving.agent import create_agent_app
from gymrail.serving.loopback import serve_on_loopback
from gymrail.serving.settings import Settings
from gymrail.spec import EnvironmentSpec


class Fragile(Environment[Task]):
    """Its tool and its verifier break when they are told to."""

    @tool
    def poke(self, hard: bool) -> str:
        """Poke it.

        Args:
            hard: How.
        """
        if hard:
            raise RuntimeError("it fell apart")
        return "It wobbles."

    def seed(self) -> None:
        if "no seed" in str(self.task.input_items):
            raise RuntimeError("no ground to stand on")

    def verify(self, rollout: Rollout) -> float:
        return 1.0


SPEC = EnvironmentSpec("fragile", Fragile)


class Policy:
    """Calls a tool, then says goodbye; `tokens` are the two calls' fields."""

    def __init__(self, *tokens: tuple[list[int], list[int]] | None, hard: bool = False) -> None:
        self.tokens = tokens
        self.hard = hard

    async def respond(self, request: ModelRequest) -> ModelResponse:
        step = sum(item.get("type") == "function_call_output" for item in request.input)
        if self.tokens and self.tokens[0] is None and self.hard:
            raise ModelError("the endpoint is down")
        item = message("Bye.") if step else function_call("poke", f'{{"hard": {str(self.hard).lower()}}}', "c")
        given = self.tokens[step]
        if given is None:
            return ModelResponse([item])
        names = {"prompt_token_ids": given[0], "generation_token_ids": given[1]}
        return ModelResponse([{**item, **names, "generation_log_probs": [-0.5] * len(given[1])}])


def run(
    policy: Any, text: str = "Go.", agent: ToolLoop | None = None, **options: Any
) -> tuple[int, Any, list[Rollout]]:
    recorded: list[Rollout] = []
    app = create_agent_app(
        [SPEC], policy, agent or ToolLoop(), Settings.for_address("127.0.0.1", is_open=True), for_training=True,
        record=recorded.append, **options,
    )  # fmt: skip

    async def ask() -> tuple[int, Any]:
        async with serve_on_loopback(app) as url, aiohttp.ClientSession() as session, asyncio.timeout(300):
            row = {"responses_create_params": {"input": text}, "instance_config": {"kept": 1}}
            async with session.post(f"{url}/run", json=row) as response:
                return response.status, await response.json()

    return *asyncio.run(ask()), recorded


def test_a_scored_rollout_is_answered_as_ever() -> None:
    status, answer, recorded = run(Policy(([1], [2]), ([1, 2, 3], [4])))
    assert (status, answer["reward"], answer["instance_config"]) == (200, 1.0, {"kept": 1})
    assert [item.get("generation_token_ids") for item in answer["response"]["output"]] == [[2], None, [4]]
    assert [rollout.reward for rollout in recorded] == [1.0]


def test_a_failure_is_an_answer_that_is_masked_and_says_that_it_failed() -> None:
    status, answer, recorded = run(Policy(([1], [2]), None, hard=True))
    assert (status, answer["reward"]) == (200, 0.0)
    assert answer["instance_config"] == {"kept": 1, "mask_sample": True}
    assert answer["gymrail"]["status"] == "failed"
    assert answer["_ng_failure_class"] == "tool_failed"
    assert answer["response"]["output"][0]["generation_token_ids"] == [2]
    assert [rollout.reward for rollout in recorded] == [None]


def test_a_failure_before_the_first_answer_has_one_token_that_nothing_is_trained_on() -> None:
    status, answer, _ = run(Policy(([1], [2])), "no seed")
    assert (status, answer["instance_config"]["mask_sample"]) == (200, True)
    (item,) = answer["response"]["output"]
    assert item["generation_token_ids"] == [0]
    assert len(item["generation_log_probs"]) == 1


def test_the_trainer_hears_of_its_own_model_being_down() -> None:
    status, answer, _ = run(Policy(None, hard=True))
    assert status == 500
    assert answer["error"]["kind"] == "model"


def test_an_answer_without_token_ids_is_an_error_and_not_a_row() -> None:
    status, answer, _ = run(Policy(([1], [2]), None))
    assert status >= 400
    assert "1 of 2 model calls carry the token ids" in answer["error"]["message"]


def test_of_a_rewritten_history_the_last_unbroken_part_keeps_its_tokens() -> None:
    status, answer, _ = run(Policy(([1], [2]), ([1, 9, 3], [4])))
    assert status == 200
    assert [item.get("generation_token_ids") for item in answer["response"]["output"]] == [None, None, [4]]
    assert "mask_sample" not in answer["instance_config"]


@pytest.mark.parametrize("is_trained", [True, False])
def test_an_episode_out_of_steps_is_masked_where_it_is_not_to_be_trained(is_trained: bool) -> None:
    policy = Policy(([1], [2]), ([1, 2, 3], [4]))
    status, answer, recorded = run(policy, agent=ToolLoop(1), train_truncated=is_trained)
    assert (status, answer["reward"], answer["gymrail"]["status"]) == (200, 1.0, "truncated")
    assert ("mask_sample" in answer["instance_config"]) == (not is_trained)
    assert answer["response"]["output"][0]["generation_token_ids"] == [2]
    assert [rollout.reward for rollout in recorded] == [1.0]


def test_a_trained_model_has_an_address() -> None:
    with pytest.raises(InputError, match="http://HOST:PORT/v1"):
        trained_model("oracle", None)
