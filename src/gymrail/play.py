"""Play one episode from the task to the record."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from gymrail.agents.tool_loop import Agent, ToolLoop
from gymrail.charges import charge_to, end_charging
from gymrail.episode import DEFAULT_LIMITS, Episode, Limits
from gymrail.errors import ContextOverflow, EpisodeClosed, EpisodeFailed, Failure, guard
from gymrail.models.model import EpisodePolicy, Model
from gymrail.rollout import Outcome, Reason, Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

DEFAULT_AGENT = ToolLoop()
_SLACK_SECONDS = 0.05
"""The limit on the whole talk comes after the limits of its parts, which say what took so long. One timer for the talk
instead of one per model call saves a twentieth of an episode's CPU time."""

Watch = Callable[..., Awaitable[Rollout]]
"""Takes what `play` takes, and plays it by calling `play` with an `episode_class` of its own."""

_watch: Watch | None = None


def watch(playing: Watch | None) -> None:
    """Have every episode of this process played by `playing`, as tracing does; None plays them as they are."""
    global _watch
    _watch = playing


def is_watched() -> bool:
    """Whether somebody watches the episodes of this process."""
    return _watch is not None


async def play(
    spec: EnvironmentSpec,
    task: Task,
    model: Model | EpisodePolicy,
    *,
    agent: Agent = DEFAULT_AGENT,
    limits: Limits = DEFAULT_LIMITS,
    task_index: int = 0,
    repeat: int = 0,
    attempt: int = 1,
    episode_class: type[Episode] = Episode,
) -> Rollout:
    """Play an episode and return its rollout, with an outcome whatever happened: what breaks is `failed`, and has no
    reward.

    Raises:
        asyncio.CancelledError: cancelled; the episode is closed first, and the caller counts it as `cancelled`.
        InputError: the task does not fit the environment.
    """
    identity: dict[str, Any] = {"task_index": task_index, "repeat": repeat, "attempt": attempt}
    if _watch is not None and episode_class is Episode:
        return await _watch(spec, task, model, agent=agent, limits=limits, **identity)
    try:
        episode = await episode_class.open(spec, task, limits=limits, **identity)
    except EpisodeFailed as error:
        return failed_before_opening(spec, task, error, **identity)
    reason: Reason | None = None
    charging = charge_to(episode.rollout)
    try:
        # Not isinstance: with a protocol that costs more than a tool call.
        bind = getattr(model, "bind", None)
        answering: Any = model if bind is None else await guard("model", bind, episode)
        outcome = await _run(agent, episode, answering)
        reason = outcome.reason
        await episode.verify()
    except EpisodeFailed as error:
        outcome = Outcome("failed", error.failure, reason)
    except EpisodeClosed as error:
        outcome = Outcome("failed", Failure("infrastructure", "tool", str(error)))
    except asyncio.CancelledError:
        episode.finish(Outcome("cancelled"))
        raise
    finally:
        end_charging(charging)
        await episode.close()
    return episode.finish(outcome)


async def _run(agent: Agent, episode: Episode, model: Model) -> Outcome:
    try:
        limit = episode.remaining_seconds + _SLACK_SECONDS
        # What the model raises was sorted where it was called: the rest is a bug of the agent, and would come again.
        return await guard("model", agent.run, episode, model, timeout_seconds=limit, kind="agent")
    except ContextOverflow:
        return Outcome("truncated", reason="context")


def failed_before_opening(spec: EnvironmentSpec, task: Task, error: EpisodeFailed, **identity: Any) -> Rollout:
    """Record an episode whose seeding broke."""
    prompt = task.input_items
    rollout = Rollout(spec.name, task, f"unopened_{uuid.uuid4().hex}", **identity)
    rollout.conversation, rollout.prompt_length = prompt, len(prompt)
    rollout.outcome = Outcome("failed", error.failure)
    return rollout
