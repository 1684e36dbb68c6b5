"""Tokens that a curriculum and dynamic sampling save, measured: two environments, finite tasks of several difficulties.

    python benchmarks/adaptive.py                              (seeds 0, 1 and 2)
    python benchmarks/adaptive.py --seeds 0 --check

Both arms train the recipe `recipes/grpo/adaptive.yaml` from the same warm start, which saw other tasks of the same
kinds, in shares of its own; the uniform one without its `mixing`.
A curve is held-out reward over sampled tokens: all that GRPO's journal holds, probes, groups that were given up and
repeated attempts included. Both are smoothed alike, by a mean of three points; the target is what uniform sampling ends
with, and tokens are those at which a smoothed curve first is there, linear between points. Target: at least 25% fewer,
on average over the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from gymrail.recipe import Recipe, load_recipe
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec

RECIPE = Path(__file__).parents[1] / "recipes" / "grpo" / "adaptive.yaml"
SAVED = 0.25
EVERY = 10
"""Optimiser steps between two points of a curve."""
AROUND = 1
"""Points on either side that a point is smoothed with."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what the adaptive recipe saves.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to run, one after another")
    parser.add_argument("--steps", type=int, help="optimiser steps of uniform sampling; the recipe's by default")
    parser.add_argument("--keep", type=Path, help="folder for the runs; what is there already is not run again")
    parser.add_argument("--check", action="store_true", help="exit with 1 when the target is missed")
    parser.add_argument("--write", type=Path, help="write the table as Markdown to this file")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        more = [f"settings.max_steps={options.steps}"] if options.steps else []
        rows = [compare(seed, folder / str(seed), more) for seed in options.seeds]
    table = as_markdown(rows)
    print(table)
    if options.write is not None:
        options.write.write_text(table + "\n", encoding="utf-8")
    return int(options.check and not is_met(rows))


def compare(seed: int, folder: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """Return what both arms needed with a seed, and their curves."""
    start = warm_start(seed, folder / "start")
    uniform = curve_of("uniform", ["mixing={}", *more], seed, start, folder)
    target = smoothed(uniform["points"])[-1][1]
    adaptive = curve_of("adaptive", more, seed, start, folder, target)
    saved = saving(uniform["points"], adaptive["points"])
    return {"seed": seed, "uniform": uniform, "adaptive": adaptive, **saved}


def saving(uniform: Sequence[Sequence[float]], adaptive: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the target, the tokens that both curves needed for it, and the share saved; all tokens that the adaptive
    arm sampled count where it did not reach the target."""
    curves = [smoothed(uniform), smoothed(adaptive)]
    target = curves[0][-1][1]
    needed = [reached(curve, target) for curve in curves]
    assert needed[0] is not None
    spent = needed[1] if needed[1] is not None else curves[1][-1][0]
    saved = 1 - spent / needed[0]
    if needed[1] is None:
        saved = min(saved, 0.0)
    return {"target": target, "needed": needed, "saved": saved}


def smoothed(curve: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Return the curve with each reward the mean of the points around it; at the ends, of as many as lie on both
    sides."""
    points = []
    for index, (tokens, _) in enumerate(curve):
        around = min(AROUND, index, len(curve) - 1 - index)
        window = [reward for _, reward in curve[index - around : index + around + 1]]
        points.append((tokens, sum(window) / len(window)))
    # The last one would be a single point: the ends of both arms are the mean of the last that a whole window has.
    return points[: len(points) - AROUND]


def reached(curve: Sequence[tuple[float, float]], target: float) -> float | None:
    """Tokens at which a curve first reaches a reward, linear between its points."""
    before = curve[0]
    for point in curve:
        if point[1] >= target:
            width = point[1] - before[1]
            return before[0] + (point[0] - before[0]) * ((target - before[1]) / width if width > 0 else 1.0)
        before = point
    return None


def is_met(rows: Sequence[dict[str, Any]]) -> bool:
    return mean_saved(rows) >= SAVED


def mean_saved(rows: Sequence[dict[str, Any]]) -> float:
    return sum(row["saved"] for row in rows) / len(rows)


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| Seed | Held-out reward: start | target | Tokens, uniform | adaptive | Saved | Lost, uniform | adaptive |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        needed = [f"{count:,.0f}" if count is not None else "not reached" for count in row["needed"]]
        start = row["uniform"]["points"][0][1]
        waste = [f"{row[arm]['without_spread']:.0%}" for arm in ("uniform", "adaptive")]
        cells = [str(row["seed"]), f"{start:.3f}", f"{row['target']:.3f}", *needed, f"{row['saved']:.0%}", *waste]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, f"| mean | | | | | {mean_saved(rows):.0%} | | |"])


def warm_start(seed: int, run: Path) -> Path:
    """Train the recipe's warm start, once per seed, and return its checkpoint."""
    policy = run / "warm_start" / "policy"
    if not (policy / "config.json").is_file():
        # With a seed of its own: the tasks of GRPO are not the ones that the warm start has seen.
        other = ["mixture.0.weight=1", "mixture.1.weight=1.5"]
        short = [*other, "mixing={}", "settings.max_steps=4", "settings.warmup_steps=0", "settings.save_strategy='no'"]
        arguments = [
            "train",
            str(RECIPE),
            f"seed={seed + 1000}",
            f"output={run}",
            "resume=true",
            "evaluation=null",
            *short,
        ]
        subprocess.run([sys.executable, "-m", "gymrail", *arguments], check=True, timeout=3600)
    return policy


def curve_of(
    name: str, mixing: Sequence[str], seed: int, start: Path, folder: Path, target: float | None = None
) -> dict[str, Any]:
    """Train one arm, and return its curve and what share of its tokens taught nothing; where a target is given, no
    longer than until the curve is there."""
    file = folder / f"{name}.json"
    if not file.is_file():
        overrides = ["warm_start=null", f"model={start}", f"seed={seed}", *mixing]
        file.write_text(json.dumps(train(folder / name, overrides, target)), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def train(folder: Path, overrides: Sequence[str], target: float | None) -> dict[str, Any]:
    """Train the recipe in this process, its curve measured."""
    from gymrail_trl.grpo import check_mixture, run_grpo
    from gymrail_trl.settings import build_config
    from gymrail_trl.stages import Policy, load_policy, prepare_process

    recipe: Recipe = load_recipe(RECIPE, [*overrides, f"output={folder}", "settings.save_strategy='no'"])
    specs = recipe.specs()
    args = build_config(recipe, "grpo", recipe.settings, folder / "checkpoints")
    check_mixture(recipe, specs, args)
    prepare_process(recipe.model_copy(update={"threads": recipe.threads or 1}))
    policy: Policy = load_policy(recipe, recipe.model)
    curve = Curve(folder.name, lambda step: held_out(recipe, policy, specs, folder / f"held-out-{step}"), target)
    log = run_grpo(recipe, policy, specs, args, record=curve.count, callbacks=[curve])
    (folder / "log.json").write_text(json.dumps(log), encoding="utf-8")
    return {"points": curve.points, "without_spread": curve.without_spread}


class Curve(TrainerCallback):
    """Held-out reward by sampled tokens."""

    def __init__(self, name: str, measure: Callable[[int], float], target: float | None) -> None:
        self.name = name
        self.measure = measure
        self.target = target
        self.tokens = 0
        self.points: list[tuple[int, float]] = []
        self.groups: dict[tuple[float, str, int], list[float]] = defaultdict(lambda: [0.0, 1.0, 0.0])
        """By group: its tokens, its least and its largest reward."""

    def count(self, rollout: Rollout) -> None:
        tokens = rollout.usage.output_tokens + rollout.earlier_usage.output_tokens
        self.tokens += tokens
        group = self.groups[rollout.metrics["train_step"], rollout.environment, rollout.task_index]
        group[0] += tokens
        if rollout.reward is not None:
            group[1:] = min(group[1], rollout.reward), max(group[2], rollout.reward)

    @property
    def without_spread(self) -> float:
        """Share of the tokens that were sampled for groups whose rewards are all equal."""
        return sum(tokens for tokens, least, largest in self.groups.values() if least >= largest) / max(1, self.tokens)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._add(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % EVERY == 0:
            self._add(state.global_step)
            if self.target is not None and reached(smoothed(self.points), self.target) is not None:
                control.should_training_stop = True

    def _add(self, step: int) -> None:
        self.points.append((self.tokens, self.measure(step)))
        shown = f"{self.name} step {step}: {self.points[-1]}, {self.without_spread:.2f} without spread"
        print(shown, file=sys.stderr, flush=True)


def held_out(recipe: Recipe, policy: Any, specs: Sequence[EnvironmentSpec], path: Path) -> float:
    """Mean over the environments of held-out reward as its place in the declared range; training's randomness is left
    as it was."""
    import torch

    from gymrail_trl.stages import evaluate

    was_training = policy.model.training
    with torch.random.fork_rng():
        scores = evaluate(recipe, policy, specs, path)
    policy.model.train(was_training)
    places = [scores[spec.name]["mean"] / spec.reward_range[1] for spec in specs]
    return sum(places) / len(places)


if __name__ == "__main__":
    sys.exit(main())
