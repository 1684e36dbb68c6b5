"""The tool loop: call the model, run its tool calls, answer user turns, until the talk is over or a budget runs out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Protocol

from gymrail.episode import Episode
from gymrail.errors import ContextOverflow, EpisodeFailed, Failure, InputError, ModelError, guard
from gymrail.models.model import Model, ModelRequest, ModelResponse
from gymrail.rollout import Outcome, Reason
from gymrail.task import Item


class Agent(Protocol):
    """Plays an episode to its end, before the verifier; returns `scored` or `truncated`. `play` cancels it when the
    episode's time is over.

    Raises:
        EpisodeFailed: the environment, a tool or the model broke.
    """

    async def run(self, episode: Episode, model: Model) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class ToolLoop:
    """The default agent. Tool calls of one turn run together unless the task says `parallel_tool_calls: false`.

    An answer that is reasoning alone, without a message or a call, ends the talk with an empty answer: it is the
    policy's own doing, so it is scored (`metrics["reasoning_only"]`), and not asked again.
    """

    max_steps: int | None = None
    """Model calls per episode; the environment's own setting by default."""
    parameters: tuple[tuple[str, Any], ...] = ()
    """Responses parameters that replace the task's, such as ("temperature", 0.7)."""

    def __post_init__(self) -> None:
        if self.max_steps is not None and self.max_steps < 1:
            raise InputError(f"max_steps is {self.max_steps!r}; an episode has at least 1 step.")

    async def run(self, episode: Episode, model: Model) -> Outcome:
        rollout, task = episode.rollout, episode.task
        max_steps = self.max_steps or episode.spec.manifest.agent.max_steps
        parameters = {
            key: value for key, value in task.responses_create_params.items() if key not in ("input", "tools")
        }
        parameters.update(self.parameters)
        request_of = _Requests(episode, parameters)
        limits = episode.limits
        call_limit, has_limits = limits.tool_call_limit, limits.end_between_steps
        while True:
            try:
                response = await self._ask(episode, model, request_of())
            except ContextOverflow:
                return Outcome("truncated", reason="context")
            episode.touch()
            if response.finish_reason != "stop":
                return Outcome("truncated", reason=_reason_of(response.finish_reason, episode))
            calls = [item for item in response.items if item.get("type") == "function_call"]
            allowed = calls if call_limit is None else calls[: max(0, call_limit - len(rollout.calls))]
            if allowed:
                await _run_calls(episode, allowed)
            elif not calls and not await _next_user_turn(episode, response):
                return Outcome("scored")
            if episode.is_done:
                return Outcome("scored")
            if allowed is not calls and len(allowed) < len(calls):
                return Outcome("truncated", reason="tool_call_limit")
            if rollout.steps >= max_steps:
                return Outcome("truncated", reason="max_steps")
            if has_limits and (reason := limits.reached(rollout.usage, episode.seconds)) is not None:
                return Outcome("truncated", reason=reason)

    async def _ask(self, episode: Episode, model: Model, request: ModelRequest) -> ModelResponse:
        rollout = episode.rollout
        started = time.perf_counter()
        try:
            # The model keeps to the request's limit; `play` ends an episode whose model does not.
            response = await guard("model", _respond, model, request)
        finally:
            rollout.timing.model += time.perf_counter() - started
        rollout.steps += 1
        rollout.usage = rollout.usage.plus(response.usage)
        rollout.model = response.model or rollout.model
        rollout.conversation.extend(response.items)
        return response


async def _respond(model: Model, request: ModelRequest) -> ModelResponse:
    response = await model.respond(request)
    if not response.items and response.finish_reason == "stop":
        raise ModelError("the model answered with no items")
    for item in response.items:
        if item.get("type") == "function_call" and not (
            isinstance(item.get("call_id"), str) and isinstance(item.get("name"), str)
        ):
            raise ModelError(f"the model's function_call {item!r} has no 'call_id' or no 'name'")
    return response


class _Requests:
    """Builds an episode's requests; what never changes is built once."""

    __slots__ = ("episode", "parameters", "tools")

    def __init__(self, episode: Episode, parameters: dict[str, Any]) -> None:
        self.episode = episode
        self.parameters = parameters
        self.tools = episode.tool_schemas

    def __call__(self) -> ModelRequest:
        episode = self.episode
        rollout, limits, remaining = episode.rollout, episode.limits, episode.remaining_seconds
        if remaining <= 0:
            message = f"the episode took longer than {limits.episode_seconds:g} seconds"
            raise EpisodeFailed(Failure("timeout", "model", message))
        parameters = self.parameters
        if limits.output_token_limit is not None:
            left = limits.output_token_limit - rollout.usage.output_tokens
            parameters = {**parameters, "max_output_tokens": min(left, parameters.get("max_output_tokens") or left)}
        return ModelRequest(rollout.conversation, self.tools, parameters, rollout.id, remaining)


def _reason_of(finish_reason: Reason, episode: Episode) -> Reason:
    """The model's own limit per answer, or what was left of the episode's."""
    limit = episode.limits.output_token_limit
    is_ours = limit is not None and episode.rollout.usage.output_tokens >= limit
    return "output_token_limit" if is_ours and finish_reason == "max_output_tokens" else finish_reason


async def _run_calls(episode: Episode, calls: list[Item]) -> None:
    """Run one turn's calls and append their outputs in the order in which the model wrote them."""
    if len(calls) == 1:
        outputs = [await _run_call(episode, calls[0])]
    elif episode.task.allows_parallel_calls:
        # All of them finish, so that no tool is cut off half way; then the first failure is raised.
        results = await asyncio.gather(*(_run_call(episode, call) for call in calls), return_exceptions=True)
        outputs = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            outputs.append(result)
    else:
        outputs = [await _run_call(episode, call) for call in calls]
    episode.rollout.conversation.extend(outputs)


async def _run_call(episode: Episode, item: Item) -> Item:
    # Some endpoints number calls from 0 in every turn. The id is what makes a repeated call idempotent, so a turn's id
    # must be new.
    key = episode.fresh_call_id(item["call_id"])
    call = await episode.call(item["name"], item.get("arguments") or "{}", key)
    return {"type": "function_call_output", "call_id": item["call_id"], "output": call.output}


async def _next_user_turn(episode: Episode, response: ModelResponse) -> bool:
    if not any(item.get("role") == "assistant" for item in response.items):
        episode.rollout.metrics["reasoning_only"] = True
        return False
    turn = await episode.reply()
    if turn is None:
        return False
    episode.rollout.conversation.append(turn)
    return True
