"""The training loop, run for a few steps and looked into: for `gymrail validate-trainer`."""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gymrail.errors import InputError
from gymrail.rollout import Rollout
from gymrail.validation.report import Line, Points
from gymrail_trl.grpo import FINGERPRINT, run_grpo
from gymrail_trl.scaled_down import TEACHER, Load, Scaled
from gymrail_trl.settings import build_config
from gymrail_trl.train import _lora
from gymrail_trl.watched import RowWatch, WeightWatch

TOKENS, LOOP = Points("tokens"), Points("loop")
LARGEST, LARGEST_RATIO = 1e-3, 1.05
"""How far the trainer's log-probs may be from the sampler's: in float32 each by so much; in half precision the mean of
exp(|difference|), which is the limit that NeMo RL's own runs are held to (token_mult_prob_error)."""
SAME_LOSS = 1e-6
_ON_POLICY = "See docs/tokens.md; the sampler and the trainer must have the same weights, precision and temperature."


@dataclass
class _Run:
    """A small run and what was seen of it."""

    weights: WeightWatch = field(default_factory=WeightWatch)
    rows: RowWatch = field(default_factory=RowWatch)
    journal: list[Rollout] = field(default_factory=list)
    checkpoints: Path = Path()


def check_loop(scaled: Scaled, load: Load) -> Iterator[Line]:
    """Train a few steps, look at what was trained and what became of it, and go on from a checkpoint."""
    algorithm, plan = scaled.plan.recipe.algorithm, scaled.plan
    plan.notes.append(f"{plan.recipe.settings['max_steps']} optimiser steps, on batches of a few rollouts")
    if algorithm == "iterated":
        from gymrail_trl.loop_iterated import check_iterated

        yield from check_iterated(scaled, load)
        return
    runs = _Runs(scaled, load)
    whole = runs.run("whole")
    if algorithm == "grpo":
        yield _trained(whole)
        yield _log_probs(whole)
    else:
        why = f"{algorithm} trains on stored rollouts, not on what the policy samples meanwhile"
        yield TOKENS.skipped("trained tokens", why)
        yield TOKENS.skipped("log-probs", why)
    yield steps_line(whole.weights.log, runs.steps)
    yield _weights(whole, algorithm)
    if algorithm == "grpo":
        yield _rewards(whole, scaled)
    else:
        yield LOOP.skipped("rewards", f"{algorithm} has no rewards to read back")
    yield _checkpoint(whole, scaled, load)
    yield _resumed(whole, runs.run("resumed", after=whole), scaled.saved_at)


class _Runs:
    """Runs the recipe's algorithm from the same start, each time as a new process would."""

    def __init__(self, scaled: Scaled, load: Load) -> None:
        self.scaled = scaled
        self.load = load
        self.steps = int(scaled.plan.recipe.settings["max_steps"])
        self._data: Any = None

    def run(self, name: str, after: _Run | None = None) -> _Run:
        from gymrail_trl.stages import fine_tune, prepare_process

        recipe, specs = self.scaled.plan.recipe, self.scaled.plan.specs
        run = _Run(checkpoints=self.scaled.plan.directory / name / "checkpoints")
        if after is not None:
            kept = f"checkpoint-{self.scaled.saved_at}"
            shutil.copytree(after.checkpoints / kept, run.checkpoints / kept)
            if (after.checkpoints / FINGERPRINT).is_file():
                shutil.copy(after.checkpoints / FINGERPRINT, run.checkpoints / FINGERPRINT)
        prepare_process(recipe)
        policy = self.load(recipe, self.scaled.path)
        config = build_config(recipe, recipe.algorithm, recipe.settings, run.checkpoints)
        lora = None if hasattr(policy.model, "peft_config") else _lora(recipe)
        if recipe.algorithm == "grpo":
            run_grpo(
                recipe, policy, specs, config, record=run.journal.append, callbacks=[run.weights], lora=lora,
                watch=run.rows,
            )  # fmt: skip
        else:
            fine_tune(policy, self._rows(), config, recipe.algorithm, [run.weights], lora)
        return run

    def _rows(self) -> Any:
        """A teacher's rollouts in the place of the recipe's data."""
        from gymrail.models.build import build_model
        from gymrail_trl.stages import collect_groups, rows_from

        if self._data is None:
            plan = self.scaled.plan
            rollouts = collect_groups(
                plan.recipe, plan.specs, build_model(TEACHER, seed=plan.recipe.seed), plan.directory / "data",
                range(16 * len(plan.specs)), 4,
            )  # fmt: skip
            self._data = rows_from(plan.recipe, plan.specs, [str(rollouts.path)], plan.recipe.algorithm)
        return self._data


def _trained(run: _Run) -> Line:
    found = run.rows.found
    problems = [*found.problems]
    if not found.rows or found.rows == found.masked:
        problems.append(f"all {found.rows} rows of the loss are masked: nothing was trained")
    detail = (
        f"{found.rows} rows in the loss, {found.tokens} trained tokens: those that were sampled, in their places, and "
        f"no others; {found.masked} rows masked"
    )
    return TOKENS.judged(
        "trained tokens", problems, detail, "See docs/tokens.md: what is trained must be what was sampled."
    )


def _log_probs(run: _Run) -> Line:
    found = run.rows.found
    if not found.differences:
        return TOKENS.skipped("log-probs", "no sampled token was found in the loss", "See trained tokens.")
    is_full = all(str(value.dtype) == "torch.float32" for value in run.weights.before.values())
    figures = (
        f"difference over {len(found.differences)} tokens: max {found.largest:.1e}, mean {found.mean:.1e}, "
        f"mean exp|d| {found.ratio:.4f}"
    )
    allowed = f"max {LARGEST:g} allowed" if is_full else f"mean exp|d| {LARGEST_RATIO:g} allowed in half precision"
    # Not `>`: a difference that is no number is a failure too.
    held = found.largest <= LARGEST if is_full else found.ratio <= LARGEST_RATIO
    return TOKENS.judged("log-probs", [] if held else [f"{figures}; {allowed}"], f"{figures}; {allowed}", _ON_POLICY)


def steps_line(log: Sequence[dict[str, Any]], wanted: int, name: str = "steps") -> Line:
    """Whether so many optimiser steps were made, each with a finite loss and gradient."""
    made = [entry for entry in log if "loss" in entry]
    losses = [float(entry["loss"]) for entry in made]
    gradients = [float(entry["grad_norm"]) for entry in made if "grad_norm" in entry]
    problems = [f"step {place + 1}: the loss is {loss}" for place, loss in enumerate(losses) if not math.isfinite(loss)]
    problems += [
        f"step {n + 1}: the gradient is {value}" for n, value in enumerate(gradients) if not math.isfinite(value)
    ]
    if len(made) != wanted:
        problems.append(f"{len(made)} of {wanted} optimiser steps were made")
    shown = ", ".join(f"{loss:.4g}" for loss in losses[:4]) + (", ..." if len(losses) > 4 else "")
    norm = f"; gradient norm up to {max(gradients):.3g}" if gradients else ""
    return LOOP.judged(
        name, problems, f"{len(made)} optimiser steps, loss {shown}{norm}", "Lower settings.learning_rate."
    )


def _weights(run: _Run, algorithm: str) -> Line:
    weights = run.weights
    rates = [float(entry["learning_rate"]) for entry in weights.log if "learning_rate" in entry]
    moved = {name: float((weights.after[name] - value).abs().max()) for name, value in weights.before.items()}
    changed = sum(change > 0 for change in moved.values())
    if changed:
        numbers = sum(value.numel() for value in weights.before.values())
        by = f"by up to {max(moved.values()):.1e}"
        return LOOP.passed(
            "weights", f"{changed} of {len(moved)} tensors changed ({numbers:,} trainable numbers), {by}"
        )
    if rates and max(rates) == 0:
        why = "no weight changed: the learning rate was 0 in every step"
        return LOOP.failed("weights", why, "Set settings.learning_rate and its schedule.")
    spread = _with_spread(run)
    if algorithm == "grpo" and spread == 0:
        why = "no weight changed, and no group had rewards that differ: there was nothing to learn from"
        return LOOP.skipped(
            "weights", why, "Take more steps (--steps), or a policy that solves some tasks (--model PATH)."
        )
    why = f"no weight changed in {len(rates)} steps at a learning rate up to {max(rates, default=0):g}"
    fix = "In half precision small steps are rounded away: dtype: float32, or lora; see also settings.optim."
    return LOOP.failed("weights", why, fix)


def _with_spread(run: _Run) -> int:
    """How many groups had rewards that differ."""
    groups: dict[tuple[int, str, int], set[float]] = defaultdict(set)
    for step, batch in zip(run.rows.steps, run.rows.batches, strict=True):
        for rollout in batch:
            if rollout.reward is not None:
                groups[step, rollout.environment, rollout.task_index].add(rollout.reward)
    return sum(len(rewards) > 1 for rewards in groups.values())


def _rewards(run: _Run, scaled: Scaled) -> Line:
    """Hold what the trainer reports of each batch against the rollouts that were recorded."""
    problems: list[str] = []
    compared = 0
    means: dict[str, list[float]] = defaultdict(list)
    reported = {int(entry["step"]): entry for entry in run.weights.log if any(key.startswith("env/") for key in entry)}
    for step, rewards in zip(run.rows.steps, run.rows.rewards, strict=True):
        entry = reported.get(step + 1)
        if entry is None:
            problems.append(f"the trainer reports no metrics of the batch at step {step}")
            continue
        played: dict[str, list[float]] = defaultdict(list)
        for rollout in run.journal:
            if rollout.metrics.get("train_step") == step and rollout.reward is not None:
                played[rollout.environment].append(rollout.reward)
        for name, values in played.items():
            mean = sum(values) / len(values)
            means[name].append(mean)
            compared += _compare(f"env/{name}/reward", entry, mean, step, problems)
        given = [reward for reward in rewards if reward is not None]
        if given:
            compared += _compare("reward", entry, sum(given) / len(given), step, problems)
    shown = ", ".join(f"{name} {sum(values) / len(values):.2f}" for name, values in sorted(means.items()))
    spread = _with_spread(run)
    detail = f"{compared} means of {len(run.rows.steps)} batches as recorded: {shown}; {spread} groups with spread"
    fix = "Report this: the trainer's rewards are not those of the rollouts."
    return LOOP.judged("rewards", problems, detail, fix)


def _compare(key: str, entry: dict[str, Any], mean: float, step: int, problems: list[str]) -> int:
    value = entry.get(key)
    if value is None or not math.isclose(float(value), mean, rel_tol=1e-4, abs_tol=1e-5):
        problems.append(f"step {step}: the trainer reports {key} {value}, and the rollouts earned {mean:.6g}")
    return 1


def _checkpoint(run: _Run, scaled: Scaled, load: Load) -> Line:
    step = max(run.weights.saved, default=0)
    folder = run.checkpoints / f"checkpoint-{step}"
    fix = "See settings.save_strategy, and whether there is room on the disk."
    if not folder.is_dir():
        return LOOP.failed("checkpoint", "no checkpoint was written", fix)
    try:
        model = _loaded(folder, scaled, load)
    except InputError as error:
        return LOOP.failed("checkpoint", f"checkpoint-{step} cannot be loaded: {error}", fix)
    kept = run.weights.saved[step]
    again = {name: value.detach().cpu() for name, value in model.named_parameters()}
    problems = _differences(kept, again)
    detail = f"checkpoint-{step} loads again, its {len(kept)} trainable tensors as they were"
    return LOOP.judged("checkpoint", problems, detail, "Report this: what is saved is not what was trained.")


def _loaded(folder: Path, scaled: Scaled, load: Load) -> Any:
    if not (folder / "adapter_config.json").is_file():
        return load(scaled.plan.recipe.model_copy(update={"lora": None}), str(folder)).model
    from peft import PeftModel

    base = load(scaled.plan.recipe.model_copy(update={"lora": None}), scaled.path).model
    return PeftModel.from_pretrained(base, str(folder), is_trainable=True)


def _differences(kept: dict[str, Any], again: dict[str, Any]) -> list[str]:
    """What of the kept weights is missing or changed."""
    problems = [f"{name} is missing" for name in kept if name not in again]
    return problems + [
        f"{name} differs by up to {float((again[name].float() - value.float()).abs().max()):.1e}"
        for name, value in kept.items()
        if name in again and not bool((again[name].to(value.dtype) == value).all())
    ]


def _resumed(whole: _Run, resumed: _Run, at: int) -> Line:
    """Hold a run that went on from the checkpoint of step `at` against the one that was not stopped."""
    problems = []
    if resumed.weights.steps[:1] != [at + 1]:
        problems.append(f"it does not go on after step {at}: its first step is {resumed.weights.steps[:1]}")
    wrong = _differences(whole.weights.saved[at], resumed.weights.begun)
    problems += [f"it goes on with other weights than the checkpoint's: {problem}" for problem in wrong[:1]]
    one, other = ([_played(rollout) for rollout in _after(run, at)] for run in (whole, resumed))
    if [task for task, _ in one] != [task for task, _ in other]:
        problems.append(f"after step {at} it plays other tasks than the run that was not stopped")
    losses = [{int(e["step"]): float(e["loss"]) for e in run.weights.log if "loss" in e} for run in (whole, resumed)]
    later = [step for step in losses[0] if step > at]
    apart = max((abs(losses[0][step] - losses[1].get(step, math.inf)) for step in later), default=math.inf)
    what = f"the same weights and the same {len(one)} rollouts' tasks" if one else "the same weights and data"
    # Who samples together depends on how long tools take, and a GPU adds up in another order: then answers differ.
    if one == other and not _has_gpu():
        if apart > SAME_LOSS:
            problems.append(f"its losses after step {at} differ by up to {apart:.1e}")
        what += f", losses of {len(later)} steps differ by {apart:.1e}"
    else:
        what += "; the answers are sampled otherwise, so losses are not compared"
    fix = "See docs/trl.md, With a recipe: a checkpoint goes on with the recipe that made it."
    return LOOP.judged("stop and resume", problems, f"from checkpoint-{at}: {what}", fix)


def _after(run: _Run, at: int) -> list[Rollout]:
    """The rollouts that were sampled at that step or later."""
    batches = zip(run.rows.steps, run.rows.batches, strict=True)
    return [rollout for step, batch in batches if step >= at for rollout in batch]


def _played(rollout: Rollout) -> tuple[str, list[list[int]]]:
    sampled = [list(item["generation_token_ids"]) for item in rollout.model_calls()]
    return f"{rollout.environment}:{rollout.task.id}", sampled


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
