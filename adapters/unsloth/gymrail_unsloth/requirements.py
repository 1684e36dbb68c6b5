"""What training with Unsloth needs, checked in a second or two: nothing here imports Unsloth, TRL or torch."""

from __future__ import annotations

import importlib.util
import os
from importlib import metadata
from typing import TYPE_CHECKING

from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail_trl.gpu import has_gpu
from gymrail_trl.requirements import check_evaluation, check_options
from gymrail_unsloth.keys import check_keys

if TYPE_CHECKING:
    from packaging.requirements import Requirement

MINIMUM = {"unsloth": "2026.10.1", "unsloth_zoo": "2026.10.1", "trl": "1.7"}
"""Unsloth 2026.10.1 is the first that takes a TRL from 1.7 on, which leaves rollouts without a reward out of a group's
mean; the releases before it hold TRL at 0.24 or older."""

_PINNED = ("trl", "transformers", "torch", "datasets", "peft", "accelerate")
"""Packages whose releases Unsloth limits."""
_INSTALL = (
    "pip install 'gymrail[unsloth]' in a virtual environment of its own: Unsloth pins older releases of trl, "
    "transformers and datasets than gymrail[trl] takes"
)


def check_requirements(recipe: Recipe) -> None:
    """Refuse what would break or be ignored later: packages, their versions, no GPU, loading options, settings.

    Raises:
        InputError: with what to do about it.
    """
    check_packages()
    _check_process()
    check_keys(recipe)
    _check_loading(recipe)
    check_options(recipe)
    check_evaluation(recipe)


def check_packages() -> None:
    """Hold the installed packages against our minimum and against Unsloth's own pins.

    Raises:
        InputError: one is missing or out of range; the text has the range and the command.
    """
    for name, minimum in MINIMUM.items():
        _check_range(name, f">={minimum}", "The Unsloth adapter")
    unsloth = _installed("unsloth")
    for requirement in _pins():
        _check_range(requirement.name, str(requirement.specifier), f"unsloth {unsloth}")


def on_cpu() -> bool:
    """Whether this run is one of the CPU runs that Unsloth allows for tests.

    Raises:
        InputError: there is no GPU and no permission to do without, or there are both.
    """
    allowed = os.environ.get("UNSLOTH_ALLOW_CPU", "0") == "1"
    gpu = has_gpu()
    if allowed and gpu:
        raise InputError(
            "UNSLOTH_ALLOW_CPU=1 is set and there is a GPU here; under it Unsloth leaves half of its patches out. "
            "Unset it: unset UNSLOTH_ALLOW_CPU"
        )
    if not allowed and not gpu:
        raise InputError(
            f"Unsloth trains on a GPU, and this process sees none (torch {_installed('torch')}). Run the recipe on a "
            "GPU machine, or with TRL: trainer=trl. For tests, UNSLOTH_ALLOW_CPU=1 runs Unsloth's trainers on the CPU."
        )
    return allowed


def _check_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}; the Unsloth adapter trains on one GPU in one process. "
            "For several GPUs use trainer=trl with accelerate or --processes (docs/where_it_runs.md)."
        )


def _check_loading(recipe: Recipe) -> None:
    cpu = on_cpu()
    section = recipe.unsloth
    options = [name for name in ("load_in_4bit", "load_in_8bit", "fast_inference") if getattr(section, name)]
    if section.load_in_4bit and section.load_in_8bit:
        raise InputError("unsloth.load_in_4bit and unsloth.load_in_8bit are both set; choose one.")
    if options and recipe.lora is None:
        raise InputError(
            f"unsloth.{options[0]} trains adapters beside frozen weights, and the recipe has no `lora`; "
            f"set lora.r=16, or unsloth.{options[0]}=false."
        )
    if options and cpu:
        raise InputError(f"unsloth.{options[0]} needs a GPU, and this is a CPU run; set unsloth.{options[0]}=false.")
    for option in options:
        package = "vllm" if option == "fast_inference" else "bitsandbytes"
        if importlib.util.find_spec(package) is None:
            raise InputError(f"unsloth.{option} needs the package {package}: pip install {package}")
    if recipe.sampling.context_length is None:
        raise InputError(
            "sampling.context_length is not set; Unsloth sizes the policy's positions and caches by it. "
            "Set the tokens of a whole episode, such as sampling.context_length=4096."
        )


def _pins() -> list[Requirement]:
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in metadata.requires("unsloth") or []]
    return [
        requirement
        for requirement in requirements
        if requirement.name in _PINNED and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]


def _check_range(name: str, allowed: str, who: str) -> None:
    from packaging.specifiers import SpecifierSet

    version = _installed(name)
    if not SpecifierSet(allowed).contains(version, prereleases=True):
        raise InputError(f"{who} needs {name} {allowed}; installed is {version}. {_INSTALL}.")


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError as error:
        raise InputError(
            f"The Unsloth adapter needs the package {name}, which is not installed: {_INSTALL}."
        ) from error
