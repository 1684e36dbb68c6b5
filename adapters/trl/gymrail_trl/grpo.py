"""GRPO on a mixture, from a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gymrail.agents.tool_loop import ToolLoop
from gymrail.data.mixture import Mixture
from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail.recipe_mixture import mixture_of
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail_trl.dataset import group_dataset, groups_needed
from gymrail_trl.places import SaveMixture, restore_mixture
from gymrail_trl.processes import is_first
from gymrail_trl.rollout import RolloutFunction
from gymrail_trl.stages import Policy, built, forget_precision, last_checkpoint, limits_of, overlong_of, sampling_of

FINGERPRINT = "mixture.txt"
_SCALES = (True, False, "batch", "group", "none")


def check_config(args: Any) -> None:
    """Refuse settings under which a run could not be resumed, or would not end.

    Raises:
        InputError: with the value to use.
    """
    if args.max_steps <= 0:
        raise InputError(
            "settings.max_steps is not set; a mixture has no epochs, so say how many optimiser steps to train."
        )
    window = args.steps_per_generation * args.num_iterations
    if window % args.gradient_accumulation_steps:
        raise InputError(
            f"settings.steps_per_generation * num_iterations is {window}; it must be a multiple of "
            f"gradient_accumulation_steps ({args.gradient_accumulation_steps})."
        )
    if args.scale_rewards not in _SCALES:
        raise InputError(f"settings.scale_rewards is {args.scale_rewards!r}; TRL knows batch, group and none.")
    steps = window // args.gradient_accumulation_steps
    # Below 1 it is a share of the run, as Transformers rounds it.
    save_steps = args.save_steps if args.save_steps >= 1 else math.ceil(args.max_steps * args.save_steps)
    if str(args.save_strategy.value) == "steps" and int(save_steps) % steps:
        raise InputError(
            f"settings.save_steps is {args.save_steps:g}; one batch of rollouts serves {steps} optimiser steps, so "
            f"save every multiple of {steps}, or a restart would cut a batch in two."
        )


def check_mixture(recipe: Recipe, specs: Sequence[EnvironmentSpec], args: Any) -> None:
    """Refuse a mixture that a run of these settings cannot be drawn from.

    Raises:
        InputError: with the value to use.
    """
    mixture = mixture_of(recipe, specs)
    groups = args.generation_batch_size // args.num_generations
    floors = sum(member.floor for member in mixture.members)
    if floors > groups:
        raise InputError(
            f"The floors of the mixture sum to {floors}, and a batch of rollouts has {groups} groups "
            f"(generation_batch_size {args.generation_batch_size} / num_generations {args.num_generations}); lower "
            "them, or raise settings.steps_per_generation."
        )
    dynamic = mixture.mixing.dynamic_sampling
    if dynamic is not None and dynamic.probe is not None and dynamic.probe >= args.num_generations:
        raise InputError(
            f"mixing.dynamic_sampling.probe is {dynamic.probe}, and a group has {args.num_generations} rollouts "
            "(settings.num_generations); probe with fewer, or leave it out."
        )
    needed, length = groups_needed(args), mixture.length
    if length is not None and needed > length:
        steps = args.max_steps * length // needed
        raise InputError(
            f"The mixture's epochs have {length} groups, and settings.max_steps={args.max_steps} needs {needed}; "
            f"set settings.max_steps={max(1, steps)}, or raise epochs."
        )


def run_grpo(
    recipe: Recipe,
    policy: Policy,
    specs: Sequence[EnvironmentSpec],
    args: Any,
    *,
    record: Callable[[Rollout], None],
    record_held_out: Callable[[Rollout], None] | None = None,
    callbacks: Sequence[Any] = (),
    lora: Any = None,
    watch: Callable[[Any, RolloutFunction], None] | None = None,
) -> list[dict[str, Any]]:
    """Train the policy in place and return the trainer's log.

    Args:
        record_held_out: called with the rollouts of the trainer's own evaluation instead of `record`.
        watch: shown the trainer before it begins.
    """
    from transformers import PrinterCallback
    from trl.trainer.grpo_trainer import GRPOTrainer

    mixture = mixture_of(recipe, specs)
    checkpoints = Path(args.output_dir)
    _check_fingerprint(mixture, checkpoints)
    mixtures = {"train": mixture}
    held_out = None
    if args.eval_strategy != "no" and recipe.evaluation is not None:
        mixtures["validation"] = mixture_of(recipe, specs, recipe.evaluation.split)
        held_out = group_dataset(mixtures["validation"], "validation", recipe.evaluation.tasks)
    rollouts = RolloutFunction(
        mixtures,
        agent=ToolLoop(recipe.agent.max_steps),
        limits=limits_of(recipe),
        sampling=sampling_of(recipe),
        context_length=recipe.sampling.context_length,
        concurrency=recipe.agent.concurrency,
        retries=recipe.agent.retries,
        train_truncated=recipe.train_truncated,
        overlong=overlong_of(recipe),
        record=record,
        record_held_out=record_held_out,
    )
    forget_precision()
    trainer = built(
        GRPOTrainer,
        model=policy.model,
        args=args,
        reward_funcs=[rollouts.reward],
        rollout_func=rollouts,
        train_dataset=group_dataset(mixture, "train", groups_needed(args)),
        eval_dataset=held_out,
        processing_class=policy.tokenizer,
        peft_config=lora,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(checkpoints)
    if (stream := rollouts.streams.get("train")) is not None:
        trainer.add_callback(SaveMixture(stream))
        if checkpoint is not None:
            restore_mixture(stream, Path(checkpoint))
    if watch is not None:
        watch(trainer, rollouts)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        rollouts.close()
    policy.model = trainer.accelerator.unwrap_model(trainer.model)
    return list(trainer.state.log_history)


def _check_fingerprint(mixture: Mixture, checkpoints: Path) -> None:
    """A checkpoint goes on with the mixture that it was made with."""
    if not is_first():
        return
    file = checkpoints / FINGERPRINT
    if file.is_file() and last_checkpoint(checkpoints) and file.read_text(encoding="utf-8") != mixture.fingerprint:
        raise InputError(
            f"The mixture (environments, weights, seed or code) changed since the checkpoints in {checkpoints} were "
            "made, so their data order cannot be continued. Give the run a new name, or restore the mixture."
        )
    checkpoints.mkdir(parents=True, exist_ok=True)
    file.write_text(mixture.fingerprint, encoding="utf-8")
