"""A recipe's `settings`, checked against the trainer's own configuration class before anything loads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from gymrail.errors import InputError, did_you_mean
from gymrail.recipe import Recipe, yaml_numbers

OURS: dict[str, dict[str, str]] = {
    "grpo": {
        "temperature": "sampling.temperature",
        "top_p": "sampling.top_p",
        "max_completion_length": "sampling.max_output_tokens and sampling.context_length",
        "shuffle_dataset": "the mixture, which keeps its own order",
        "seed": "seed",
        "output_dir": "output",
    },
    "sft": {"seed": "seed", "output_dir": "output", "assistant_only_loss": "always on for conversations"},
    "dpo": {"seed": "seed", "output_dir": "output"},
}
"""Keys that a recipe sets elsewhere, and where."""


def check_versions() -> None:
    """Refuse a TRL that lacks the hooks that the adapter stands on.

    Raises:
        InputError: TRL is missing or too old; with the command that fixes it.
    """
    try:
        from trl import __version__ as version
    except ImportError as error:
        raise InputError("The TRL adapter needs TRL, Transformers and torch: pip install 'gymrail[trl]'") from error
    from packaging.version import Version

    if Version(version) < Version("1.7"):
        raise InputError(
            f"TRL {version} is too old: from 1.7 on, rollouts without a reward leave a group's mean alone. "
            "pip install -U 'gymrail[trl]'"
        )


def build_config(recipe: Recipe, algorithm: str, settings: dict[str, Any], output: Path) -> Any:
    """Build TRL's configuration object for one stage.

    Raises:
        InputError: an unknown key (with the nearest), one that the recipe sets elsewhere, or a value that TRL refuses.
    """
    check_versions()
    import torch
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.sft_config import SFTConfig

    cls = {"grpo": GRPOConfig, "sft": SFTConfig, "dpo": DPOConfig}[algorithm]
    known = {field.name for field in dataclasses.fields(cls) if field.init}
    # YAML 1.1 reads a bare `no` as False; for a strategy nobody means that.
    values = {
        key: "no" if value is False and key.endswith("_strategy") else value
        for key, value in yaml_numbers(settings).items()
    }
    for key in values:
        if key in OURS[algorithm]:
            raise InputError(f"settings.{key}: set {OURS[algorithm][key]} instead; the recipe keeps the two in step.")
        if key not in known:
            raise InputError(f"settings.{key}: {cls.__name__} has no such key. {did_you_mean(key, known)}")
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
