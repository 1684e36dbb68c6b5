"""Unsloth itself: starting it before TRL, and loading the policy with it."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail_unsloth.requirements import on_cpu

if TYPE_CHECKING:
    from gymrail_trl.stages import Policy

TRAINERS = {"grpo": "GRPOTrainer", "sft": "SFTTrainer", "dpo": "DPOTrainer"}
ADAPTER = "adapter_config.json"


def start_unsloth(compiled: Path) -> None:
    """Import Unsloth, which puts its trainers in place of TRL's, and see that it did.

    On a machine without a GPU this needs UNSLOTH_ALLOW_CPU=1; Unsloth then leaves TRL alone, and is asked for each
    trainer here.

    Args:
        compiled: the folder for the trainers that Unsloth writes and for its compiled kernels; a folder that
            UNSLOTH_COMPILE_LOCATION names goes before.

    Raises:
        InputError: TRL was imported before, there is no GPU, or a trainer was not replaced.
    """
    if "trl" in sys.modules and "unsloth" not in sys.modules:
        raise InputError("TRL is imported already, and Unsloth must come before it; import gymrail_unsloth first.")
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(compiled))
    cpu = on_cpu()
    if cpu:
        # Compiling for a CPU takes longer than any test trains.
        os.environ.setdefault("UNSLOTH_COMPILE_DISABLE", "1")
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    import unsloth  # noqa: F401  # pyright: ignore[reportMissingImports]

    if cpu:
        from unsloth.models.rl import _patch_trl_rl_trainers  # pyright: ignore[reportMissingImports]
        from unsloth_zoo.cpu.ops import patch_trl_fused_lm_head  # pyright: ignore[reportMissingImports]

        # TRL 1.15's DPO goes through a Triton kernel on every device; Unsloth has the same in torch.
        patch_trl_fused_lm_head()
        for algorithm in TRAINERS:
            _patch_trl_rl_trainers(f"{algorithm}_trainer")
    check_replaced()


def check_replaced() -> None:
    """See that TRL's trainers are Unsloth's now; Unsloth itself only warns where one could not be built.

    Raises:
        InputError: one is not.
    """
    for algorithm, name in TRAINERS.items():
        cls = getattr(importlib.import_module(f"trl.trainer.{algorithm}_trainer"), name)
        if cls.__name__ != f"Unsloth{name}":
            raise InputError(
                f"Unsloth did not put its own trainer in place of TRL's {name}, and says why above. Its release may "
                "not go with this TRL: pip install -U 'gymrail[unsloth]'"
            )


def load_policy(recipe: Recipe, path: str) -> Policy:
    """Load a checkpoint, or adapters that a stage before has saved, ready for Unsloth's trainers.

    Raises:
        InputError: none can be loaded from the path.
    """
    from gymrail_trl.stages import Policy

    if on_cpu():
        return Policy(path, *_load_on_cpu(recipe, path))
    model, tokenizer = _load_on_gpu(recipe, path)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Policy(path, model, tokenizer)


def loading_arguments(recipe: Recipe, path: str) -> dict[str, Any]:
    """Return what `FastLanguageModel.from_pretrained` is called with; `dtype` is still a name."""
    section = recipe.unsloth
    arguments: dict[str, Any] = {
        "model_name": path,
        "max_seq_length": recipe.sampling.context_length,
        "dtype": None if recipe.dtype == "auto" else recipe.dtype,
        "load_in_4bit": section.load_in_4bit,
        "load_in_8bit": section.load_in_8bit,
        "full_finetuning": recipe.lora is None,
        "use_gradient_checkpointing": section.gradient_checkpointing,
        "random_state": recipe.seed,
    }
    if section.fast_inference:
        arguments |= {"fast_inference": True, "gpu_memory_utilization": section.gpu_memory_utilization}
    if section.fast_inference and recipe.lora is not None:
        arguments["max_lora_rank"] = recipe.lora.r
    return arguments


def adapter_arguments(recipe: Recipe) -> dict[str, Any]:
    """Return what `FastLanguageModel.get_peft_model` is called with."""
    section = recipe.lora
    assert section is not None
    return {
        "r": section.r,
        "lora_alpha": section.alpha,
        "lora_dropout": section.dropout,
        "target_modules": section.target_modules,
        "use_gradient_checkpointing": recipe.unsloth.gradient_checkpointing,
        "random_state": recipe.seed,
    }


def _load_on_gpu(recipe: Recipe, path: str) -> tuple[Any, Any]:
    import torch
    from unsloth import FastLanguageModel  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    arguments = loading_arguments(recipe, path)
    if arguments["dtype"] is not None:
        arguments["dtype"] = getattr(torch, arguments["dtype"], None)
        if not isinstance(arguments["dtype"], torch.dtype):
            raise InputError(f"dtype is {recipe.dtype!r}; torch has no such type. Use auto, bfloat16 or float32.")
    try:
        model, tokenizer = FastLanguageModel.from_pretrained(**arguments)
    except (OSError, ValueError) as error:
        raise InputError(f"Unsloth could load no checkpoint from {path!r}: {str(error).splitlines()[0]}") from error
    if recipe.lora is not None and not (Path(path) / ADAPTER).is_file():
        model = FastLanguageModel.get_peft_model(model, **adapter_arguments(recipe))
    return model, tokenizer


def _load_on_cpu(recipe: Recipe, path: str) -> tuple[Any, Any]:
    """Load what Unsloth's trainers take where its own models, made of GPU kernels, cannot run."""
    from gymrail.models.transformers import load_checkpoint

    adapter = Path(path) / ADAPTER
    base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"] if adapter.is_file() else path
    plain, tokenizer = load_checkpoint(base, device="cpu", dtype="float32")
    model: Any = plain
    if adapter.is_file():
        from peft import PeftModel

        model = PeftModel.from_pretrained(plain, path, is_trainable=True)
    elif recipe.lora is not None:
        from peft import LoraConfig, get_peft_model

        arguments = adapter_arguments(recipe)
        del arguments["use_gradient_checkpointing"], arguments["random_state"]
        model = get_peft_model(plain, LoraConfig(task_type="CAUSAL_LM", **arguments))
    # What Unsloth's trainers call and read on its own models; without the mark they train in half precision.
    model.for_training = lambda *_, **__: model.train()
    model.for_inference = lambda *_, **__: model.eval()
    model._unsloth_user_float32 = True
    return model, tokenizer
