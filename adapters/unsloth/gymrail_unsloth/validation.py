"""`gymrail validate-trainer` with Unsloth: the lines of the TRL adapter, with Unsloth's trainers and loading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail.validation.plan import TINY, Plan
from gymrail.validation.report import GROUPS, Line, Points
from gymrail_trl.keys import CONFIGS
from gymrail_unsloth.keys import check_keys, known_keys
from gymrail_unsloth.loading import load_policy, start_unsloth
from gymrail_unsloth.requirements import check_packages, check_requirements, on_cpu
from gymrail_unsloth.train import with_trl_defaults

LOOP = Points("loop")
FIX = "Correct the recipe; docs/unsloth.md has the keys."


def check_trainer(plan: Plan) -> Iterator[Line]:
    """Yield the lines of the endpoint, of token ids and of the training loop; where Unsloth cannot run, those that need
    only a policy, which Transformers loads."""
    plan = replace(plan, recipe=_without_gpu_parts(plan))
    missing = _machine_problem()
    if missing is None:
        try:
            check_requirements(plan.recipe)
        except InputError as error:
            yield LOOP.failed("configuration", str(error), FIX)
            return
        start_unsloth(plan.directory / "unsloth_compiled_cache")
        from gymrail_trl.validation import check_trainer as check_with_trl

        yield from check_with_trl(replace(plan, recipe=with_trl_defaults(plan.recipe)), load_policy)
        return
    try:
        from gymrail_trl.validation import check_policy

        yield from check_policy(plan)
        plan.notes.append("the policy loaded by Transformers, not by Unsloth")
    except ImportError as error:
        for group in ("endpoint", "tokens"):
            yield Points(group).skipped(GROUPS[group].lower(), str(error), "pip install 'gymrail[trl]'")
    yield from _configuration(plan.recipe)
    yield Points("tokens").skipped("trained tokens", "Unsloth cannot run here", "See Training loop.")
    yield LOOP.skipped("steps, weights, rewards, checkpoint, stop and resume", missing)


def _machine_problem() -> str | None:
    """What this machine or its packages lack to run Unsloth, whatever the recipe."""
    try:
        check_packages()
        on_cpu()
    except InputError as error:
        return str(error)
    return None


def _configuration(recipe: Recipe) -> Iterator[Line]:
    """What can be said of the settings without Unsloth's own classes."""
    try:
        check_keys(recipe)
    except InputError as error:
        yield LOOP.failed("configuration", str(error), FIX)
        return
    if known_keys(recipe.algorithm if recipe.algorithm in CONFIGS else "sft"):
        yield LOOP.passed("configuration", f"the recipe's {len(recipe.settings)} settings are known, by name")
    else:
        yield LOOP.skipped("configuration", "TRL, whose keys the settings are, is not installed")


def _without_gpu_parts(plan: Plan) -> Recipe:
    """The tiny policy has nothing to quantise, and vLLM does not know it."""
    section = plan.recipe.unsloth
    parts = {name: False for name in ("load_in_4bit", "load_in_8bit", "fast_inference") if getattr(section, name)}
    if plan.model != TINY or not parts:
        return plan.recipe
    plan.notes.append(f"without {', '.join(f'unsloth.{name}' for name in parts)}")
    changes: dict[str, Any] = {"unsloth": section.model_copy(update=parts)}
    return plan.recipe.model_copy(update=changes)
