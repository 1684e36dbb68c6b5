"""What a trainer logs of a batch: per-environment means."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from gymrail.rollout import Rollout


def batch_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Per-environment means of a batch, under `env/<name>/...`: reward, outcome shares, steps, tool calls and
    errors, the verifier's numbers."""
    metrics: dict[str, float] = {}
    for name in sorted({rollout.environment for rollout in rollouts}):
        mine = [rollout for rollout in rollouts if rollout.environment == name]
        prefix = f"env/{name}"
        metrics[f"{prefix}/share"] = len(mine) / len(rollouts)
        statuses = Counter(rollout.outcome.status for rollout in mine if rollout.outcome)
        for status in ("scored", "truncated", "failed"):
            metrics[f"{prefix}/{status}"] = statuses[status] / len(mine)
        calls = [call for rollout in mine for call in rollout.calls]
        metrics[f"{prefix}/steps"] = sum(rollout.steps for rollout in mine) / len(mine)
        metrics[f"{prefix}/tool_calls"] = len(calls) / len(mine)
        if calls:
            metrics[f"{prefix}/tool_errors"] = sum(call.is_error for call in calls) / len(calls)
        judged = [rollout for rollout in mine if rollout.reward is not None]
        numbers: dict[str, list[float]] = defaultdict(list)
        for rollout in judged:
            assert rollout.reward is not None
            numbers["reward"].append(rollout.reward)
            for key, value in rollout.reward_components.items():
                numbers[f"components/{key}"].append(value)
            for key, value in rollout.metrics.items():
                if isinstance(value, int | float) and key != "train_step":
                    numbers[key].append(float(value))
        metrics |= {f"{prefix}/{key}": sum(values) / len(values) for key, values in numbers.items()}
    return metrics
