"""What NeMo RL's logger measured, step by step, as `<run>/log.json`: one object per step, as other trainers' runs have.

    [{"step": 1, "train/loss": 0.02, "train/reward": 0.31, "timing/train/total_step_time": 41.5, ...},
     {"step": 5, ..., "validation/accuracy": 0.4}, ...]

NeMo RL writes its metrics to the backends that are switched on, of which TensorBoard's is the one that stays on disk:
`logs/exp_NNN/tensorboard/events.out.tfevents.*`, one experiment per start. `launch` reads them, because NeMo RL's
environment has TensorBoard and Gymrail's need not.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

LOG = "log.json"
_NOT_OF_STEPS = ("ray/", "hparam/")
"""Metrics that NeMo RL counts by samples of its GPU monitor, or not at all."""


def write_log(directory: Path) -> Path | None:
    """Write a run's log from what NeMo RL logged in all of its starts; return the file, or None where nothing is.

    Needs TensorBoard. Where two starts logged the same step, the later one's values hold.
    """
    steps: dict[int, dict[str, float]] = {}
    for folder in sorted((directory / "logs").glob("exp_*/tensorboard"), key=_start_of):
        for tag, step, value in _scalars(folder):
            if not tag.startswith(_NOT_OF_STEPS):
                steps.setdefault(step, {})[tag] = value
    if not steps:
        return None
    path = directory / LOG
    entries = [{"step": step, **steps[step]} for step in sorted(steps)]
    path.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    return path


def read_log(directory: Path) -> list[dict[str, float]]:
    """Return a run's log; empty where NeMo RL logged nothing."""
    path = directory / LOG
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _scalars(folder: Path) -> list[tuple[str, int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})  # 0: all of them
    events.Reload()
    found = [(tag, event) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    # JSON has no NaN; a metric that is none, such as the spread of one value, is left out.
    return [(tag, event.step, event.value) for tag, event in found if math.isfinite(event.value)]


def _start_of(folder: Path) -> int:
    return int(folder.parent.name.removeprefix("exp_"))
