"""A mixture as the dataset of a TRL trainer: one row a group, in the mixture's order."""

from __future__ import annotations

from typing import Any

from gymrail.data.mixture import Mixture
from gymrail.rollout import text_of
from gymrail_trl.rollout import TASK_KEY


def group_dataset(mixture: Mixture, split: str, groups: int) -> Any:
    """Return a `datasets.Dataset` whose row i is group i of the mixture; the trainer repeats each row `num_generations`
    times.

    Train with `shuffle_dataset=False`: the order is the mixture's own, so that a restart from a checkpoint continues
    it. The prompt's text is for logs; the episode brings its own. In a mixture that is drawn
    batch by batch row i is its place i, and has no text: its task is known when it is reached.
    """
    from datasets import Dataset

    prompts = []
    for index in range(groups):
        shown = _shown(mixture, index) if mixture.is_plain else ""
        prompts.append([{"role": "user", "content": shown, TASK_KEY: f"{split}:{index}"}])
    return Dataset.from_dict({"prompt": prompts})


def groups_needed(args: Any) -> int:
    """How many groups a GRPO run of `args.max_steps` optimiser steps draws.

    One generation serves `steps_per_generation * num_iterations` micro-steps; `gradient_accumulation_steps` of those
    make a step.
    """
    micro_steps = args.max_steps * args.gradient_accumulation_steps
    generations = -(-micro_steps // (args.steps_per_generation * args.num_iterations))
    return generations * (args.generation_batch_size // args.num_generations)


def _shown(mixture: Mixture, index: int) -> str:
    items = mixture.group(index).task.input_items
    return next((text_of(item) for item in reversed(items) if item.get("role") == "user"), "")
