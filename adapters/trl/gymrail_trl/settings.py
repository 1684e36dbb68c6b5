"""A recipe's `settings`, checked against the trainer's own configuration class before anything loads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

from gymrail.errors import InputError
from gymrail.recipe import Recipe, yaml_numbers
from gymrail_trl.keys import check_names
from gymrail_trl.processes import count

_WAIT_SECONDS = 24 * 3600
"""Processes wait for each other while one samples or writes; who launched them ends them all when one is lost."""

_NUMBERS = {bool, int, float, type(None)}


def build_config(recipe: Recipe, algorithm: str, settings: dict[str, Any], output: Path) -> Any:
    """Build TRL's configuration object for one stage.

    Raises:
        InputError: an unknown key (with the nearest), one that the recipe sets elsewhere, or a value that TRL refuses.
    """
    import torch
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.sft_config import SFTConfig

    cls = {"grpo": GRPOConfig, "sft": SFTConfig, "dpo": DPOConfig}[algorithm]
    known = frozenset(field.name for field in dataclasses.fields(cls) if field.init)
    # YAML 1.1 reads a bare `no` as False; for a strategy nobody means that.
    values = {
        key: "no" if value is False and key.endswith("_strategy") else value
        for key, value in yaml_numbers(settings).items()
    }
    check_names("settings", algorithm, values, known)
    _check_types(cls, values)
    has_gpu = torch.cuda.is_available()
    defaults: dict[str, Any] = {
        "output_dir": str(output),
        "seed": recipe.seed,
        "use_cpu": not has_gpu,
        "bf16": has_gpu and torch.cuda.is_bf16_supported() and recipe.dtype != "float32",
        "gradient_checkpointing": has_gpu,
        "report_to": [],
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    if count() > 1:
        defaults["ddp_timeout"] = _WAIT_SECONDS
    if algorithm == "grpo":
        defaults |= {
            "temperature": recipe.sampling.temperature,
            "top_p": recipe.sampling.top_p,
            "shuffle_dataset": False,
        }
        defaults |= {"max_completion_length": recipe.sampling.context_length or recipe.sampling.max_output_tokens}
    if algorithm == "sft":
        defaults |= {"assistant_only_loss": True, "max_length": recipe.sampling.context_length}
    if algorithm == "dpo":
        defaults |= {"max_length": recipe.sampling.context_length}
    try:
        return cls(**{**defaults, **values})
    except (ValueError, TypeError) as error:
        raise InputError(f"{cls.__name__} refuses the settings: {error}") from error


def _check_types(cls: type[Any], values: dict[str, Any]) -> None:
    """Refuse text for a number, and a fraction for a whole one: TRL's classes take both, and a step breaks later. Of
    other kinds the annotations do not tell all that is taken."""
    kinds = {field.name: get_args(field.type) or (field.type,) for field in dataclasses.fields(cls)}
    for key, value in values.items():
        allowed = kinds[key]
        if not isinstance(value, str | float) or type(value) in allowed or not set(allowed) <= _NUMBERS:
            continue
        wanted = " or ".join("null" if kind is type(None) else str(getattr(kind, "__name__", kind)) for kind in allowed)
        raise InputError(f"settings.{key} is {value!r}; {cls.__name__} takes {wanted}.")
