"""`/reset` and `/step`, as NeMo Gym's Gymnasium-style agents call them, for environments with user turns.

An agent sums the rewards of its steps. The last one is what is missing to the verdict, so that the sum is the reward
that the verifier gave.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gymrail.rollout import Outcome, text_of
from gymrail.serving.auth import COOKIE
from gymrail.serving.control import description, open_episode, read_object
from gymrail.serving.judge import judge, take_options
from gymrail.serving.refusal import Refusal, fail, gone, json_response
from gymrail.serving.response_items import items_of, outcome_of
from gymrail.serving.service import Service, is_gymnasium
from gymrail.serving.sessions import Held
from gymrail.task import Item
from gymrail.tools import dump_json


async def reset(service: Service, request: Request, environment: str | None) -> Response:
    """Open an episode; the row's `input` is the first observation, unless seeding told one."""
    _require(service, environment)
    held = await open_episode(service, request, environment, "reset")
    task = held.episode.task
    told = "\n\n".join(text_of(item) for item in task.input_items if item.get("role") == "user")
    response = json_response(
        {"observation": told if task.is_opened else None, "info": description(service, request, held)}
    )
    response.set_cookie(COOKIE, service.signer.sign(held.id), httponly=True, samesite="lax")
    return response


async def step(service: Service, request: Request, environment: str | None) -> Response:
    """Take one answer of the model: run its tool calls, or give the next user turn, or end the episode."""
    given = service.require_control(request)
    spec = _require(service, environment)
    body = await read_object(service, request)
    options = take_options(body)
    items = items_of(body.get("response"))
    id = service.named_episode(given, options.get("episode_id")) or service.cookie_episode(given)
    held = service.table.by_id(id) if id else None
    if held is None or held.environment != spec.name or held.opened_by != "reset":
        raise gone()
    if held.step_key is not None and held.step_key == given.call_id:
        assert held.stepping is not None
    elif held.stepping is not None and not held.stepping.done():
        raise Refusal(409, "conflict", "A step of this episode is under way; wait for its answer.")
    else:
        held.step_key = given.call_id
        held.stepping = asyncio.create_task(_step(service, held, items, outcome_of(body.get("response"))))
        held.stepping.add_done_callback(lambda task: task.cancelled() or task.exception())
    response = await asyncio.shield(held.stepping)
    response.set_cookie(COOKIE, service.signer.sign(held.id), httponly=True, samesite="lax")
    return response


def _require(service: Service, environment: str | None) -> Any:
    spec = service.spec(environment)
    if not is_gymnasium(spec):
        raise Refusal(
            404, "not_found", f"{spec.name} has no user turns, so it has no /reset and /step; use /seed_session."
        )
    return spec


async def _step(service: Service, held: Held, items: list[Item], outcome: Outcome) -> Response:
    episode = held.episode
    rollout = episode.rollout
    rollout.conversation.extend(items)
    rollout.steps += 1
    calls = [item for item in items if item.get("type") == "function_call"]
    observation: str | None = None
    outputs: list[Item] = []
    reward = 0.0
    is_over = False
    if outcome.status != "truncated":
        if calls:
            outputs = await _run_calls(service, held, calls)
        else:
            before = len(rollout.step_rewards)
            turn = await episode.reply()
            is_over = turn is None
            if turn is not None:
                rollout.conversation.append(turn)
                observation = text_of(turn)
            reward = sum(rollout.step_rewards[before:])
        is_over = is_over or episode.is_done
        if not is_over and rollout.steps >= episode.spec.manifest.agent.max_steps:
            outcome = Outcome("truncated", reason="max_steps")
    info: dict[str, Any] = {"tool_outputs": outputs} if outputs else {}
    is_truncated = outcome.status == "truncated"
    if is_over or is_truncated:
        judgement = await judge(service, held, outcome)
        await service.table.close(held, "judged", judgement)
        if judgement.failure is not None:
            return fail(judgement.failure, held.id)
        assert judgement.reward is not None
        reward = judgement.reward - held.emitted_reward
        info |= {"reward_components": judgement.reward_components, "gymrail": judgement.record}
    held.emitted_reward += reward
    return json_response(
        {
            "observation": observation,
            "reward": reward,
            "terminated": is_over and not is_truncated,
            "truncated": is_truncated,
            "info": info,
        }
    )


async def _run_calls(service: Service, held: Held, calls: list[Item]) -> list[Item]:
    """Run one turn's calls, together unless the task forbids it; all of them end before the first failure is told."""
    episode = held.episode

    async def run(item: Item) -> Item:
        key = episode.fresh_call_id(item["call_id"])
        call = await service.call(held, item["name"], item.get("arguments") or "{}", key, "http")
        output = call.output if isinstance(call.output, str) else dump_json(call.output)
        return {"call_id": item["call_id"], "output": output}

    if episode.task.allows_parallel_calls:
        outputs: list[Item] = []
        for result in await asyncio.gather(*map(run, calls), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            outputs.append(result)
    else:
        outputs = [await run(item) for item in calls]
    episode.rollout.conversation += [{"type": "function_call_output", **output} for output in outputs]
    return outputs
