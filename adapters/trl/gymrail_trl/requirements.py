"""What training with TRL needs, checked in a second: nothing here imports TRL, Transformers or torch."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from gymrail.collect.run_directory import CONFIG
from gymrail.errors import InputError
from gymrail.extras import check_extra
from gymrail.recipe import MixtureEntry, Recipe
from gymrail.recipe_data import check_data
from gymrail_trl import processes
from gymrail_trl.gpu import count_gpus
from gymrail_trl.keys import check_keys, settings_of

READ = ("trl", "unsloth")
"""Whose exports TRL's trainers take."""
_GPU_KEYS = {
    "fp16": "half precision",
    "tf32": "this number format",
    "use_liger_kernel": "Liger's kernels",
}
_REPORTERS = {"wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow", "swanlab": "swanlab", "comet_ml": "comet_ml"}
"""`report_to`: what stands there, and the package."""
_MEASURED = ("curriculum", "dynamic_sampling", "late", "unit")
_STEPWISE = ("schedule", "floor", "epochs", "concurrency", "deadline_seconds")


def check_requirements(recipe: Recipe) -> None:
    """Refuse what would break later, after minutes of loading: packages, versions, keys, processes, GPUs.

    Raises:
        InputError: with what to do about it.
    """
    check_packages()
    check_keys(recipe)
    check_processes(recipe)
    check_options(recipe)
    check_evaluation(recipe)
    check_data(recipe, READ)
    check_directory(recipe)


def check_packages() -> None:
    """Hold the installed packages against our ranges and against TRL's own; from 1.7 on TRL leaves rollouts without a
    reward out of a group's mean.

    Raises:
        InputError: one is missing or out of range; the text has the range and the command.
    """
    check_extra("trl", beside=("trl", "transformers"))


def check_processes(recipe: Recipe) -> None:
    """Refuse what several processes cannot do.

    Raises:
        InputError: a mixture that is drawn by step or by what was measured, sharded weights, or fewer GPUs than
            processes.
    """
    number = processes.count()
    sharded = [name for name in ("fsdp", "deepspeed") if recipe.settings.get(name)]
    sharded += [name for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED") if _is_on(os.environ.get(name))]
    if sharded:
        raise InputError(
            f"{sharded[0]} is set; gymrail train keeps whole weights on every GPU (DistributedDataParallel). Unset it, "
            "or write a script with RolloutFunction, which samples from sharded weights too: docs/where_it_runs.md."
        )
    if number == 1:
        return
    keys = list(_stepwise_keys(recipe))
    if keys and recipe.algorithm == "grpo":
        raise InputError(
            f"{keys[0]} is set, so the mixture is drawn by step or by what was measured: in one process, and this run "
            f"has {number}. Use weights, temperature and reward_scale alone, or one process."
        )
    local, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", number)), count_gpus()
    if 0 < gpus < local:
        raise InputError(
            f"{local} processes are to run here, and there are {gpus} GPUs; each needs one: {gpus} at most."
        )


def check_options(recipe: Recipe) -> None:
    """Refuse settings that need a GPU or a package that is not here.

    Raises:
        InputError: with the setting that does without, or the command that installs it.
    """
    gpus = count_gpus()
    for place, algorithm, settings in settings_of(recipe):
        for key, what in _gpu_needs(settings, algorithm):
            if gpus == 0:
                raise InputError(
                    f"{place}.{key} is {settings[key]!r}: {what} needs a GPU, and this process sees none (torch "
                    f"{metadata.version('torch')}). Run on a GPU machine, or take {place}.{key} out of the recipe."
                )
        tensor = int(settings.get("vllm_tensor_parallel_size") or 1)
        if algorithm == "grpo" and tensor > 1 and settings.get("vllm_mode", "colocate") == "colocate":
            raise InputError(
                f"{place}.vllm_tensor_parallel_size is {tensor}: processes that share an engine would have to ask it "
                "together, and each plays its own episodes. Use settings.vllm_mode=server for a policy of that size."
            )
        for key, package in _packages_of(settings, algorithm):
            if importlib.util.find_spec(package) is None:
                name = package.replace("_", "-")
                raise InputError(
                    f"{place}.{key} is {settings[key]!r}: this needs the package {name}: pip install {name}"
                )


def check_evaluation(recipe: Recipe) -> None:
    """Refuse the trainer's own evaluation where there is nothing to evaluate on.

    Raises:
        InputError: with what to do instead.
    """
    for place, algorithm, settings in settings_of(recipe):
        strategy = settings.get("eval_strategy")
        if strategy in (None, False, "no") or (algorithm == "grpo" and recipe.evaluation is not None):
            continue
        fix = (
            "give the recipe an `evaluation`"
            if algorithm == "grpo"
            else f"with {algorithm} the recipe's `evaluation` measures before and after training; leave it out"
        )
        raise InputError(f"{place}.eval_strategy is {strategy!r}, and there are no held-out rows: {fix}.")


def check_directory(recipe: Recipe) -> None:
    """Refuse to write over a run, before several processes wait for each other.

    Raises:
        InputError: the directory holds a run, and the recipe does not resume.
    """
    if not recipe.resume and (recipe.directory / CONFIG).exists():
        raise InputError(
            f"'{recipe.directory}' already holds a run. Go on with it: resume=true; or name another directory: "
            "output=DIR."
        )


def _gpu_needs(settings: Mapping[str, Any], algorithm: str) -> Iterator[tuple[str, str]]:
    yield from ((key, what) for key, what in _GPU_KEYS.items() if _is_on(settings.get(key)))
    if settings.get("use_cpu") is False:
        yield "use_cpu", "training off the CPU"
    if "8bit" in str(settings.get("optim", "")) or "paged" in str(settings.get("optim", "")):
        yield "optim", "this optimiser"
    if algorithm == "grpo" and _is_on(settings.get("use_vllm")):
        yield "use_vllm", "vLLM, beside the trainer or behind a URL, takes weights from a GPU and so"


def _packages_of(settings: Mapping[str, Any], algorithm: str) -> Iterator[tuple[str, str]]:
    if _is_on(settings.get("use_liger_kernel")):
        yield "use_liger_kernel", "liger_kernel"
    if "8bit" in str(settings.get("optim", "")) or "paged" in str(settings.get("optim", "")):
        yield "optim", "bitsandbytes"
    if algorithm == "grpo" and _is_on(settings.get("use_vllm")):
        yield "use_vllm", "vllm"
    reported = settings.get("report_to") or []
    for name in [reported] if isinstance(reported, str) else reported:
        if name in _REPORTERS:
            yield "report_to", _REPORTERS[name]


def _stepwise_keys(recipe: Recipe) -> Iterator[str]:
    """The keys by which a mixture is not decided by a group's place alone."""
    plain = {"temperature", "size_exponent"}
    yield from (
        f"mixing.{name}" for name in sorted(recipe.mixing.model_fields_set - plain) if not recipe.mixing.is_plain
    )
    for place, entry in enumerate(recipe.mixture):
        yield from (
            f"mixture.{place}.{name}"
            for name in _STEPWISE
            if getattr(entry, name) != MixtureEntry.model_fields[name].default
        )


def _is_on(value: Any) -> bool:
    return value is True or str(value).lower() in ("true", "1", "yes", "on")
