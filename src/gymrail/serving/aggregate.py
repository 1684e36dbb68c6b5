"""What `aggregate_metrics` answers: NeMo Gym's metrics over verify responses, and the environment's own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gymrail.collect.nemo_gym_metrics import aggregate_metrics
from gymrail.environment import computes_metrics
from gymrail.errors import guard
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec


async def metrics_of(responses: Sequence[Mapping[str, Any]], spec: EnvironmentSpec | None = None) -> dict[str, Any]:
    """Return `aggregate_metrics` of the responses; what the environment computes is added to the agent's metrics.

    Raises:
        InputError: the environment computes metrics, and a response is no rollout.
        EpisodeFailed: computing them broke.
    """
    found = await asyncio.to_thread(aggregate_metrics, responses)
    if spec is None or not responses:
        return found
    if computes_metrics(spec.cls):
        found["agent_metrics"] |= await _computed(responses, spec)
    if spec.cls.key_metrics:
        agent = found["agent_metrics"]
        found["key_metrics"] = {name: agent[name] for name in spec.cls.key_metrics if name in agent}
    return found


async def _computed(responses: Sequence[Mapping[str, Any]], spec: EnvironmentSpec) -> dict[str, Any]:
    rollouts = await asyncio.to_thread(_rollouts, responses, spec)
    computed: Any = await guard("verify", asyncio.to_thread, spec.cls.compute_metrics, rollouts)
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in computed.items()
    }


def _rollouts(responses: Sequence[Mapping[str, Any]], spec: EnvironmentSpec) -> list[Rollout]:
    read = [Rollout.from_row(response, spec.cls.task_type) for response in responses]
    return [rollout for rollout in read if rollout.failure is None]
