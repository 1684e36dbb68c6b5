"""What a training run shows while it runs: one live line in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

INTERVAL_SECONDS = 5.0


class Progress(TrainerCallback):
    """Shows step, reward per environment, rollouts per second and time left, on stderr."""

    def __init__(self, title: str, rollouts_done: Callable[[], int] | None = None) -> None:
        self.title = title
        self.rollouts_done = rollouts_done
        self.is_live = sys.stderr.isatty()
        self.started = time.monotonic()
        self.first_step = 0
        self.shown = 0.0
        self.width = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = time.monotonic()
        self.first_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        now = time.monotonic()
        is_last = state.global_step >= state.max_steps
        if (
            logs is None
            or "train_runtime" in logs
            or not state.is_world_process_zero
            or not (self.is_live or is_last or now - self.shown >= INTERVAL_SECONDS)
        ):
            return
        self.shown = now
        self._write(self._line(state, logs, now - self.started))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.is_live and state.is_world_process_zero:
            sys.stderr.write("\n")

    def _line(self, state: Any, logs: dict[str, Any], seconds: float) -> str:
        parts = [f"{self.title} {state.global_step}/{state.max_steps}"]
        if "reward" in logs:
            # TRL's own word for a batch in which no rollout has a reward is None.
            reward = float("nan") if logs["reward"] is None else float(logs["reward"])
            parts.append("no rollout has a reward" if math.isnan(reward) else f"reward {reward:.2f}")
            parts += [f"{name} {value:.2f}" for name, value in _environment_rewards(logs)]
        elif "loss" in logs:
            parts.append(f"loss {float(logs['loss']):.3f}")
        if self.rollouts_done is not None and seconds > 0:
            parts.append(f"{self.rollouts_done() / seconds:.0f} rollouts/s")
        steps = state.global_step - self.first_step
        if steps and state.global_step < state.max_steps:
            parts.append(f"{seconds / steps * (state.max_steps - state.global_step):.0f} s left")
        return "  ".join(parts)

    def _write(self, line: str) -> None:
        if self.is_live:
            sys.stderr.write("\r" + line.ljust(self.width))
            self.width = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _environment_rewards(logs: dict[str, Any]) -> list[tuple[str, float]]:
    return [
        (key.removeprefix("env/").removesuffix("/reward"), float(value))
        for key, value in logs.items()
        if key.startswith("env/") and key.endswith("/reward") and key.count("/") == 2 and isinstance(value, int | float)
    ]
