"""Judging an episode over HTTP: once, whoever asks how often, and never a reward where something broke."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from gymrail.errors import EpisodeFailed
from gymrail.rollout import Outcome
from gymrail.serving.refusal import fail, json_response
from gymrail.serving.service import Service
from gymrail.serving.sessions import Held, Judgement

_OPTIONS = "_gymrail"
"""The field of a request's body that is meant for the server, and no part of the row."""


async def judge(service: Service, held: Held, outcome: Outcome) -> Judgement:
    """Judge the episode as its rollout stands; asked again or meanwhile, the same judgement.

    Raises:
        EpisodeClosed: it was closed before it was judged.
    """
    if held.judging is None:
        held.judging = asyncio.create_task(_judge(service, held, outcome))
        held.judging.add_done_callback(lambda task: task.cancelled() or task.exception())
    return await asyncio.shield(held.judging)


def answer(judgement: Judgement, episode_id: str, row: Mapping[str, Any]) -> Response:
    """The verify response: the row and the response with the reward; a failure is a 5xx, never a reward."""
    if judgement.failure is not None:
        return fail(judgement.failure, episode_id)
    metrics = {name: value for name, value in judgement.record.get("metrics", {}).items() if name not in row}
    body = {**metrics, **row, "reward": judgement.reward, "gymrail": judgement.record}
    body.pop("reward_components", None)
    if judgement.reward_components:
        body["reward_components"] = judgement.reward_components
    return json_response(body)


def take_options(body: dict[str, Any]) -> dict[str, Any]:
    """Take what is meant for the server out of a request's body."""
    options = body.pop(_OPTIONS, None)
    return options if isinstance(options, dict) else {}


async def _judge(service: Service, held: Held, outcome: Outcome) -> Judgement:
    episode = held.episode
    was_failed = episode.failure is not None
    try:
        await episode.verify()
    except EpisodeFailed as error:
        if not was_failed:
            service.note_failure(held, error)
        episode.finish(Outcome("failed", error.failure))
        return Judgement(failure=error.failure)
    rollout = episode.finish(outcome)
    service.telemetry.verified.labels(held.environment).inc()
    record = {key: value for key, value in rollout.to_row()["gymrail"].items() if key not in ("calls", "shadowed")}
    return Judgement(rollout.reward, rollout.reward_components, record)
