"""A recipe made small enough to be run on the spot, and a policy that does something in its environments.

The tiny policy is taught a few tasks of each environment by heart, from a teacher that errs in a quarter of its turns:
then it calls tools, and its rewards differ within a group, which is what GRPO learns from. A checkpoint of one's own is
taken as it is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gymrail.models.build import build_model
from gymrail.models.chat_template import ChatTemplate
from gymrail.models.scripted import Oracle
from gymrail.models.transformers import load_tokenizer
from gymrail.play import play
from gymrail.recipe import Recipe
from gymrail.validation.plan import TINY, Plan
from gymrail_trl.settings import build_config
from gymrail_trl.stages import Policy, collect_groups, fine_tune, rows_from
from gymrail_trl.tiny import TinyShape, make_tiny_policy

TASKS = 4
"""Tasks of each environment that the tiny policy learns."""
TEACHER = "oracle:0.25"
_WARM_UP: dict[str, Any] = {
    "max_steps": 80,
    "per_device_train_batch_size": 16,
    "learning_rate": 6.0e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 5,
    "adam_beta2": 0.95,
    "save_strategy": "no",
    # TRL's own defaults, said because Unsloth has others for what is not said: an optimiser of bitsandbytes is one.
    "gradient_accumulation_steps": 1,
    "optim": "adamw_torch_fused",
    "padding_free": False,
    "weight_decay": 0.0,
}
_BATCH_TOKENS, _WARM_UP_TOKENS, _LEAST_STEPS = 4096, 320_000, 20
_WORDS_FROM = 32
_MORE_WORDS = 1024
_MOST_OUTPUT = 256
_MOST_CONTEXT = 32_768
"""Positions cost nothing until they are used."""
_LEAVE_OUT = (
    "deepspeed", "eval_", "fsdp", "generation_batch_size", "gradient_accumulation_steps", "hub_", "load_best_model",
    "logging_", "max_steps", "num_generations_eval", "num_train_epochs", "per_device_", "push_to_hub", "report_to",
    "run_name", "save_", "steps_per_generation", "use_vllm", "vllm_", "warmup_",
)  # fmt: skip
"""Settings, by how their names begin, that say how long and on what a recipe trains, and not how."""

Load = Callable[[Recipe, str], Policy]


@dataclass(frozen=True, slots=True)
class Scaled:
    """What is run in the recipe's place."""

    plan: Plan
    """With the small recipe."""
    path: str
    """The checkpoint to start from."""
    saved_at: int
    """The optimiser step whose checkpoint a run goes on from."""


def scale_down(plan: Plan, load: Load) -> Scaled:
    """Make the recipe small, and the policy where it is `tiny`; `plan.notes` tells what was changed.

    Raises:
        InputError: an environment has no gold policy to teach the tiny one.
    """
    recipe = plan.recipe
    settings, saved_at = _settings(plan)
    changes: dict[str, Any] = {
        "model": plan.model,
        "output": str(plan.directory / "run"),
        "resume": False,
        "warm_start": None,
        "evaluation": None,
        "settings": settings,
    }
    if plan.model != TINY:
        limit = min(recipe.sampling.max_output_tokens, _MOST_OUTPUT)
        changes["sampling"] = recipe.sampling.model_copy(update={"max_output_tokens": limit})
        return Scaled(replace(plan, recipe=recipe.model_copy(update=changes)), plan.model, saved_at)
    if recipe.model != TINY:
        plan.notes.append(f"the tiny policy instead of {recipe.model}, in float32")
    plan.notes.append(f"{TASKS} tasks of each environment, which the tiny policy has learnt by heart")
    mixture = [
        entry.model_copy(update={"limit": min(entry.limit or TASKS, TASKS), "epochs": None}) for entry in recipe.mixture
    ]
    changes |= {"mixture": mixture, "dtype": "float32", "threads": 1}
    small = replace(plan, recipe=recipe.model_copy(update=changes))
    return _with_tiny_policy(small, load, saved_at, is_own=recipe.model == TINY)


def _settings(plan: Plan) -> tuple[dict[str, Any], int]:
    """The recipe's settings with fewer steps and smaller batches, and the step to save at."""
    recipe = plan.recipe
    kept = {key: value for key, value in recipe.settings.items() if not key.startswith(_LEAVE_OUT)}
    window = 1
    if recipe.algorithm == "grpo":
        groups = plan.groups(plan.mixture)
        # More than one optimiser step on a batch of rollouts where the recipe does so.
        per_batch = min(2, int(recipe.settings.get("steps_per_generation", 1)))
        window = per_batch * int(recipe.settings.get("num_iterations", 1))
        kept |= {
            "num_generations": plan.repeats,
            "steps_per_generation": per_batch,
            "per_device_train_batch_size": groups * plan.repeats // per_batch,
        }
    else:
        kept["per_device_train_batch_size"] = 8
    batches = max(2, math.ceil(plan.steps / window))
    saved_at = window * (batches // 2)
    kept |= {
        "gradient_accumulation_steps": 1,
        "max_steps": window * batches, "warmup_steps": 0, "save_strategy": "steps", "save_steps": saved_at,
        "save_total_limit": None,
    }  # fmt: skip
    return kept, saved_at


def _with_tiny_policy(plan: Plan, load: Load, saved_at: int, *, is_own: bool) -> Scaled:
    plan.say("Making a tiny policy and teaching it a few tasks")
    path = plan.directory / TINY
    size = plan.recipe.tiny
    # Other recipes' episodes are long: with more words they have fewer tokens.
    words = size.vocabulary if is_own else max(size.vocabulary, _MORE_WORDS)
    context = max(size.context_length, _MOST_CONTEXT)
    shape = TinyShape(**{**size.model_dump(), "vocabulary": words, "context_length": context})
    make_tiny_policy(plan.specs, path, shape=shape, seed=plan.recipe.seed, tasks=_WORDS_FROM)
    prompt, answer = _lengths(plan, path)
    context = min(prompt + 2 * answer + 64, _MOST_CONTEXT)
    sampling = {"max_output_tokens": min(answer + 16, _MOST_OUTPUT), "context_length": context}
    recipe = plan.recipe.model_copy(update={"sampling": plan.recipe.sampling.model_copy(update=sampling)})
    plan = replace(plan, recipe=recipe)
    warm = recipe.model_copy(update={"lora": None, "min_reward": None})
    rollouts = collect_groups(
        warm,
        plan.specs,
        build_model(TEACHER, seed=recipe.seed),
        plan.directory / "lessons",
        range(16 * len(plan.specs)),
        4,
    )
    policy = load(warm, str(path))
    config = build_config(warm, "sft", _warm_up(prompt + answer), plan.directory / "warm_up")
    fine_tune(policy, rows_from(warm, plan.specs, [str(rollouts.path)], "sft"), config, "sft", [])
    return Scaled(plan, policy.save(plan.directory / "start"), saved_at)


def _warm_up(length: int) -> dict[str, Any]:
    """The warm-up's settings for episodes of so many tokens: long ones come fewer at a time, and for fewer steps."""
    batch = max(2, min(_WARM_UP["per_device_train_batch_size"], _BATCH_TOKENS // length))
    steps = max(_LEAST_STEPS, min(_WARM_UP["max_steps"], _WARM_UP_TOKENS // (batch * length)))
    return {**_WARM_UP, "per_device_train_batch_size": batch, "max_steps": steps}


def _lengths(plan: Plan, path: Path) -> tuple[int, int]:
    """The longest prompt and the longest rest of the gold policy's episodes, in the tokens of the tiny policy."""
    tokenizer, ends = load_tokenizer(str(path))
    template = ChatTemplate(tokenizer, eos_token_ids=sorted(ends))
    longest, rest = 1, 1
    for spec, index, task in plan.tasks(TASKS):
        rollout = asyncio.run(play(spec, task, Oracle(), task_index=index))
        tools = spec.tool_schemas(task)
        prompt = len(template.render(rollout.conversation[: rollout.prompt_length], tools, add_generation_prompt=True))
        whole = len(template.render(rollout.conversation, tools, add_generation_prompt=False))
        longest, rest = max(longest, prompt), max(rest, whole - prompt)
    return longest, rest
