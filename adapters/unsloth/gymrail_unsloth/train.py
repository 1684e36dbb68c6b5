"""`gymrail train` with Unsloth: the TRL adapter's run, with Unsloth's trainers and a policy that Unsloth loaded."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from typing import Any

from gymrail.contract_quick import check_before_training
from gymrail.recipe import Recipe
from gymrail.recipe_data import check_data
from gymrail_trl.keys import CONFIGS
from gymrail_trl.requirements import READ, check_directory
from gymrail_unsloth.loading import load_policy, start_unsloth
from gymrail_unsloth.requirements import check_requirements

KEPT = (
    "gradient_accumulation_steps",
    "learning_rate",
    "mask_truncated_completions",
    "optim",
    "padding_free",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
    "warmup_steps",
    "weight_decay",
)
"""Settings whose defaults Unsloth changes and that change what a recipe means; TRL's defaults hold."""


def train(recipe: Recipe) -> dict[str, Any]:
    """Run a recipe and return its summary, which is also written to `<run>/metrics.json`.

    Raises:
        InputError: before anything loads: a missing package or GPU, a version out of range, a wrong setting, an unknown
            environment or one that fails its check, an existing run directory.
    """
    check_requirements(recipe)
    check_data(recipe, READ)
    check_directory(recipe)
    specs = recipe.specs()
    for note in check_before_training(recipe, specs):
        sys.stderr.write(f"Note: {note}\n")
    start_unsloth(recipe.directory / "unsloth_compiled_cache")
    from gymrail_trl.train import train_checked

    return train_checked(with_trl_defaults(recipe), specs, load_policy)


def with_trl_defaults(recipe: Recipe) -> Recipe:
    """Spell out TRL's defaults in a recipe's settings, so that the recipe means the same under both trainers."""
    changes: dict[str, Any] = {}
    if recipe.algorithm != "iterated":
        changes["settings"] = _spelt_out(recipe, recipe.algorithm, recipe.settings)
    if recipe.warm_start is not None:
        changes["warm_start"] = recipe.warm_start.model_copy(
            update={"settings": _spelt_out(recipe, "sft", recipe.warm_start.settings)}
        )
    changes["stages"] = [_stage_spelt_out(recipe, stage) for stage in recipe.stages]
    return recipe.model_copy(update=changes)


def _stage_spelt_out(recipe: Recipe, stage: Any) -> Any:
    section = stage.sft or stage.dpo
    if section is None:
        return stage
    changed = section.model_copy(update={"settings": _spelt_out(recipe, stage.kind, section.settings)})
    return stage.model_copy(update={stage.kind: changed})


def _spelt_out(recipe: Recipe, algorithm: str, settings: dict[str, Any]) -> dict[str, Any]:
    cls = getattr(importlib.import_module(f"trl.trainer.{algorithm}_config"), CONFIGS[algorithm])
    # Unsloth's class derives from TRL's and has its name.
    original = next((base for base in cls.__mro__[1:] if base.__name__ == cls.__name__), cls)
    fields = {field.name: field for field in dataclasses.fields(original)}
    values: dict[str, Any] = {name: _default(fields[name]) for name in KEPT if name in fields}
    if algorithm == "grpo":
        values |= {"use_vllm": recipe.unsloth.fast_inference, "vllm_mode": "colocate"}
        if settings.get("loss_type") == "dapo":
            # TRL's meaning of no value; Unsloth would take 0.28 when the loss is named.
            values["epsilon_high"] = settings.get("epsilon", _default(fields["epsilon"]))
    return {**values, **settings}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
