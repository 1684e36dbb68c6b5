"""What a trainer logs of a batch: per-environment means."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from gymrail.rollout import Rollout
from gymrail.task import field_of

_NONE: Mapping[str, str] = {}


def batch_metrics(rollouts: Sequence[Rollout], subset_by: Mapping[str, str] = _NONE) -> dict[str, float]:
    """Per-environment means of a batch, under `env/<name>/...`: reward, outcome shares, steps, tool calls and
    errors, the verifier's numbers.

    Args:
        subset_by: by environment, a field of its rows; under `env/<name>/<field>=<value>/...` stand the mean reward of
            the tasks with that value, their share of the environment's rollouts, and the share of their groups that
            have spread.
    """
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
        if name in subset_by:
            metrics |= {f"{prefix}/{key}": value for key, value in _by_subset(mine, subset_by[name]).items()}
    return metrics


def _by_subset(rollouts: Sequence[Rollout], field: str) -> dict[str, float]:
    subsets: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        subsets[f"{field}={field_of(rollout.task, field)}"].append(rollout)
    metrics: dict[str, float] = {}
    for subset, mine in sorted(subsets.items()):
        groups: dict[int, list[float]] = defaultdict(list)
        for rollout in mine:
            if rollout.reward is not None:
                groups[rollout.task_index].append(rollout.reward)
        rewards = [reward for group in groups.values() for reward in group]
        metrics[f"{subset}/share"] = len(mine) / len(rollouts)
        if rewards:
            metrics[f"{subset}/reward"] = sum(rewards) / len(rewards)
            metrics[f"{subset}/with_spread"] = sum(len(set(group)) > 1 for group in groups.values()) / len(groups)
    return metrics
