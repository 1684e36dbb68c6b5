"""The four-environment mixture, measured: what it learns, its shares, going on after a stop, a slow environment, and
tokens saved by curriculum and dynamic sampling.

    python benchmarks/mixture.py                               (everything, seeds 0, 1 and 2)
    python benchmarks/mixture.py --parts learn slow --seeds 0 --check

Targets: held-out reward of each environment rises by at least 0.2 with every seed; shares are within 2% of the weights;
a run killed after a checkpoint goes on with the same batch and the same loss; one environment made 20 times slower
leaves the time of a step within 1.5 times; curriculum and dynamic sampling save at least 25% of the sampled tokens, as
`benchmarks/adaptive.py` measures it, with a recipe of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import adaptive
from transformers import TrainerCallback

from gymrail.collect.run_directory import RunDirectory
from gymrail.recipe import Recipe, load_recipe
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec

RECIPE = Path(__file__).parents[1] / "recipes" / "grpo" / "mixture.yaml"
PARTS = ("learn", "resume", "slow", "tokens")
RISE, SHARE, SLOWER, STEP_TIME = 0.2, 0.02, 20, 1.5
SLOW = "treasure_hunt"
SLOW_STEPS = 80
ADAPTIVE = [
    "mixing.curriculum={fresh: 0.3, band: [0.05, 0.95], queue: 256}",
    "mixing.dynamic_sampling={refills: 2, probe: 2, least_spread: 0.25}",
]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the four-environment recipe against its targets.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to run, one after another")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--steps", type=int, help="optimiser steps of the recipe's run")
    parser.add_argument("--keep", type=Path, help="folder for the runs; what is there already is not run again")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--write", type=Path, help="write the tables as Markdown to this file")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        more = [f"settings.max_steps={options.steps}"] if options.steps else []
        rows, is_met = measure(options.parts, options.seeds, folder, more)
    text = "\n".join([*HEADER, *rows])
    print(text)
    if options.write is not None:
        options.write.write_text(text + "\n", encoding="utf-8")
    return int(options.check and not is_met)


HEADER: tuple[str, ...] = (
    "# Four environments in one run",
    "",
    "    python benchmarks/mixture.py --write benchmarks/results/mixture.md",
    "",
    f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, no GPU, the tiny policy.",
    "",
    "| Part | Seed | What | Measured | Target | Met |",
    "|---|---|---|---|---|---|",
)


def measure(parts: Sequence[str], seeds: Sequence[int], folder: Path, more: list[str]) -> tuple[list[str], bool]:
    """Run the parts and return the table's rows, and whether every target is met."""
    rows: list[tuple[str, str, str, str, str, bool]] = []
    for seed in seeds if set(parts) - {"tokens"} else []:
        run = learned(seed, folder / f"learn-{seed}", more)
        start = ["warm_start=null", f"model={run / 'warm_start' / 'policy'}", f"seed={seed}", *more]
        if "learn" in parts:
            rows += learn(run, seed)
        if "resume" in parts and seed == seeds[0]:
            rows += resume(start, folder / f"resume-{seed}", seed)
        if "slow" in parts and seed == seeds[0]:
            rows += slow(start, folder / f"slow-{seed}", seed)
    if "tokens" in parts:
        rows += tokens(seeds, folder / "tokens")
    cells = [" | ".join([*row[:5], ("yes" if row[5] else "no") if row[4] else ""]) for row in rows]
    return [f"| {cell} |" for cell in cells], all(row[5] for row in rows if row[4] != "")


def learned(seed: int, run: Path, more: list[str]) -> Path:
    """Run the recipe as a user does."""
    if not (run / "metrics.json").is_file():
        command(["train", str(RECIPE), f"seed={seed}", f"output={run}", "resume=true", *more])
    return run


def learn(run: Path, seed: int) -> list[tuple[str, str, str, str, str, bool]]:
    summary = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    rows = []
    for name, after in summary["after"].items():
        before = summary["before"][name]
        rise = after["mean"] - before["mean"]
        shown = f"{before['mean']:.2f} to {after['mean']:.2f} ({rise:+.2f})"
        rows.append(("learn", str(seed), f"held-out reward of {name}", shown, f"+{RISE}", rise >= RISE))
    recipe = load_recipe(RECIPE)
    episodes = Counter(rollout.environment for rollout in RunDirectory.open(run).rollouts())
    total = sum(entry.weight for entry in recipe.mixture)
    for entry in recipe.mixture:
        share = episodes[entry.environment] / episodes.total()
        wanted = entry.weight / total
        what, target = f"share of {entry.environment} in the journal's rollouts", f"{wanted:.4f} ± {SHARE:.0%} of it"
        rows.append(("learn", str(seed), what, f"{share:.4f}", target, abs(share - wanted) <= SHARE * wanted))
    return rows


def resume(start: list[str], folder: Path, seed: int) -> list[tuple[str, str, str, str, str, bool]]:
    """Kill a run after its first checkpoint, let it go on, and compare it with one that was not stopped."""
    short = [*start, *ADAPTIVE, "evaluation=null", "settings.max_steps=12", "settings.save_steps=4"]
    short += ["settings.save_total_limit=4", "dtype=float32"]
    whole, stopped = folder / "whole", folder / "stopped"
    command(["train", str(RECIPE), f"output={whole}", "resume=true", *short])
    if not (stopped / "metrics.json").is_file():
        arguments = ["train", str(RECIPE), f"output={stopped}", "resume=true", *short]
        kill_when(stopped / "checkpoints" / "checkpoint-4" / "mixture.json", arguments)
        command(arguments)
    batches = [played(run, 4) for run in (whole, stopped)]
    losses = [
        [entry["loss"] for entry in json.loads((run / "log.json").read_text(encoding="utf-8")) if "loss" in entry]
        for run in (whole, stopped)
    ]
    is_same = batches[0] == batches[1] and bool(batches[0])
    same_loss = losses[0] == losses[1]
    return [
        ("resume", str(seed), "next batch after a kill", "the same" if is_same else "another", "the same", is_same),
        ("resume", str(seed), "losses, float32", "equal" if same_loss else "differ", "equal", same_loss),
    ]


def played(run: Path, step: int) -> set[tuple[int, str, int, str, float | None]]:
    """What was played at a step; what a killed run played twice counts once."""
    return {
        (rollout.task_index, rollout.environment, rollout.repeat, rollout.task.id, rollout.reward)
        for rollout in RunDirectory.open(run).rollouts()
        if rollout.metrics.get("train_step") == step
    }


def slow(start: list[str], folder: Path, seed: int) -> list[tuple[str, str, str, str, str, bool]]:
    """Compare the time of a step of the recipe as it is with that of one where an environment is slower and its late
    groups are played on beside later batches."""
    late = ["mixing={late: {quorum: 0.6, patience: 2, carry: 30}}", f"settings.max_steps={SLOW_STEPS}"]
    episode_seconds: list[float] = []

    def watch(rollout: Rollout) -> None:
        if rollout.environment == SLOW and rollout.failure is None:
            episode_seconds.append(rollout.timing.total)

    clock = StepClock()
    grpo([*start, "evaluation=null", "settings.max_steps=24"], folder / "normal", [clock], watch)
    normal = clock.mean
    delay = (SLOWER - 1) * sum(episode_seconds) / len(episode_seconds)
    outcomes: Counter[str] = Counter()

    def count(rollout: Rollout) -> None:
        kind = rollout.failure.kind if rollout.failure else "in time"
        assert rollout.reward is not None or rollout.failure is not None
        outcomes[f"{'slow' if rollout.environment == SLOW else 'others'} {kind}"] += 1

    clock = StepClock()
    log = grpo([*start, "evaluation=null", *late], folder / "slow", [clock], count, lambda spec: delayed(spec, delay))
    ratio = clock.mean / normal
    what = f"time of a step, {SLOW} {SLOWER} times slower ({delay:.1f} s per episode; {dict(sorted(outcomes.items()))})"
    share, age = filled(log)
    again = (
        f"share of {SLOW} in the last third of the {SLOW_STEPS} steps; begun {age:.0f} steps before it is trained on"
    )
    return [
        ("slow", str(seed), what, f"{ratio:.2f} times", f"{STEP_TIME} times", ratio <= STEP_TIME),
        ("slow", str(seed), again, f"{share:.3f}", "", True),
    ]


def filled(log: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Of a run's last third: the share of the places that the slow environment's groups took, and how many steps
    before their batch they were begun."""
    batches = [step for step in log if any(key.endswith("/share") for key in step)]
    last = batches[-len(batches) // 3 :]
    share = sum(step.get(f"env/{SLOW}/share", 0.0) for step in last) / len(last)
    ages = [step[f"env/{SLOW}/steps_old"] for step in last if f"env/{SLOW}/steps_old" in step]
    return share, sum(ages) / max(1, len(ages))


def delayed(spec: EnvironmentSpec, seconds: float) -> EnvironmentSpec:
    """The same environment, which takes so much longer to begin."""
    if spec.name != SLOW:
        return spec

    async def seed(self: Any) -> None:
        await asyncio.sleep(seconds)
        begun = spec.cls.seed(self)
        if inspect.isawaitable(begun):
            await begun

    return replace(spec, cls=type(spec.cls.__name__, (spec.cls,), {"seed": seed, "__module__": spec.cls.__module__}))


def tokens(seeds: Sequence[int], folder: Path) -> list[tuple[str, str, str, str, str, bool]]:
    """Compare, by a recipe of their own, how many tokens uniform and adaptive sampling need."""
    compared = [adaptive.compare(seed, folder / str(seed)) for seed in seeds]
    rows = []
    for row in compared:
        shown = [f"{count:,.0f}" if count is not None else "never" for count in row["needed"]]
        what = f"tokens until held-out reward {row['target']:.3f}: uniform {shown[0]}, adaptive {shown[1]}"
        rows.append(("tokens", str(row["seed"]), what, f"{row['saved']:.0%} fewer", "", True))
    mean, is_met = adaptive.mean_saved(compared), adaptive.is_met(compared)
    return [*rows, ("tokens", "all", "tokens saved, mean", f"{mean:.0%}", f"{adaptive.SAVED:.0%}", is_met)]


class StepClock(TrainerCallback):
    """Mean seconds of a step, the first batch left out: it warms up."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % args.steps_per_generation == 0:
            self.times.append(time.monotonic())

    @property
    def mean(self) -> float:
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def grpo(
    overrides: list[str],
    folder: Path,
    callbacks: Sequence[Any],
    record: Callable[[Rollout], None],
    change: Callable[[EnvironmentSpec], EnvironmentSpec] = lambda spec: spec,
) -> list[dict[str, Any]]:
    """Train the recipe in this process, watched, and return the trainer's log."""
    from gymrail_trl.grpo import check_mixture, run_grpo
    from gymrail_trl.settings import build_config
    from gymrail_trl.stages import load_policy, prepare_process

    recipe: Recipe = load_recipe(RECIPE, [*overrides, f"output={folder}", "settings.save_strategy='no'"])
    specs = [change(spec) for spec in recipe.specs()]
    args = build_config(recipe, "grpo", recipe.settings, folder / "checkpoints")
    check_mixture(recipe, specs, args)
    prepare_process(recipe.model_copy(update={"threads": recipe.threads or 1}))
    policy = load_policy(recipe, recipe.model)
    return run_grpo(recipe, policy, specs, args, record=record, callbacks=callbacks)


def command(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "gymrail", *arguments], check=True, timeout=3600)


def kill_when(file: Path, arguments: list[str]) -> None:
    """Start a command and kill it, without a chance to tidy up, once a file is there."""
    with subprocess.Popen([sys.executable, "-m", "gymrail", *arguments]) as process:
        ends_at = time.monotonic() + 600
        while not file.is_file() and process.poll() is None and time.monotonic() < ends_at:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
