"""What a NeMo RL run left behind, as a run's metrics: rewards per environment from the record, checkpoints with what
NeMo RL noted beside each, and the last step that it logged."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymrail.collect.run_directory import RunDirectory
from gymrail.recipe import Recipe
from gymrail.spec import EnvironmentSpec
from gymrail_nemo_rl.logs import LOG, read_log
from gymrail_nemo_rl.record import EVALUATION

_SHARE = 10
"""Of the rollouts in their order, the first and the last tenth tell how far the policy came."""
_STEP = re.compile(r"step_(\d+)$")


def read_results(recipe: Recipe, specs: Sequence[EnvironmentSpec]) -> dict[str, Any]:
    """Read a finished run, write `<run>/metrics.json` and return it."""
    directory = recipe.directory
    run = RunDirectory.open(directory)
    rewards: dict[str, list[float]] = {spec.name: [] for spec in specs}
    counts = {spec.name: {"scored": 0, "truncated": 0, "failed": 0} for spec in specs}
    for finished in (*run.finished(), *run.failed()):
        name = finished.key.environment
        counts.setdefault(name, {"scored": 0, "truncated": 0, "failed": 0})[finished.status] += 1
        if finished.reward is not None:
            rewards.setdefault(name, []).append(finished.reward)
    saved, log = checkpoints_of(directory / "checkpoints"), read_log(directory)
    summary = {
        "rollouts": sum(sum(each.values()) for each in counts.values()),
        "environments": {name: {**counts[name], **_rewards(rewards.get(name, []))} for name in counts},
        "held_out": _held_out(recipe),
        "checkpoints": [{"path": str(path), **_noted(path)} for path in saved],
        "policy": str(saved[-1] / "policy") if saved else None,
        "log": str(directory / LOG) if log else None,
        "last_step": log[-1] if log else None,
        "logs": str(directory / "logs"),
    }
    run.write_metrics(summary)
    return summary


def checkpoints_of(folder: Path) -> list[Path]:
    """Return NeMo RL's checkpoints, oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("step_*") if (match := _STEP.search(path.name))]
    return [path for _, path in sorted(found)]


def _noted(checkpoint: Path) -> dict[str, Any]:
    """NeMo RL's own account of a checkpoint: its step, and the metric that it is kept by."""
    path = checkpoint / "training_info.json"
    if not path.is_file():
        return {}
    noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return noted


def _held_out(recipe: Recipe) -> dict[str, dict[str, float | None]]:
    """Held-out mean rewards per environment, at NeMo RL's first validation and at its last."""
    path = recipe.directory / EVALUATION
    if recipe.evaluation is None or not path.is_dir():
        return {}
    repeats = recipe.evaluation.repeats
    rounds: dict[str, dict[int, list[float]]] = {}
    for finished in RunDirectory.open(path).finished():
        if finished.reward is not None:
            by_round = rounds.setdefault(finished.key.environment, {})
            by_round.setdefault(finished.key.repeat // repeats, []).append(finished.reward)
    return {
        name: {"first": _mean(by_round[min(by_round)]), "last": _mean(by_round[max(by_round)])}
        for name, by_round in rounds.items()
    }


def _rewards(rewards: Sequence[float]) -> dict[str, float | None]:
    part = max(1, len(rewards) // _SHARE)
    return {"reward": _mean(rewards), "reward_first": _mean(rewards[:part]), "reward_last": _mean(rewards[-part:])}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
