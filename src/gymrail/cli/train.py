"""`gymrail train`: run a recipe with the trainer that it names."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gymrail.recipe import Recipe

GROUP = "gymrail.trainers"
"""Entry points of this group are functions that take a recipe and train."""
_ALONE = {
    "nemo_rl": "starts its own: settings.cluster.gpus_per_node=N and num_nodes=N.",
    "unsloth": "trains on one GPU in one process; trainer=trl takes several.",
}
"""Trainers that run in one process of ours, and what to do instead."""


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe, a YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Recipe keys to set, such as settings.max_steps=20.", show_default=False
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", min=1, help="Processes of this machine, one per GPU (TRL).")
    ] = 1,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Check the environments on a few tasks first, in a second.")
    ] = True,
) -> None:
    """Train by a recipe: GRPO, SFT, DPO, or stages that collect and train in turn, on one environment or a mixture.

    KEY=VALUE replaces a key of the recipe; dots reach into it, values are YAML.
    """
    import os

    from gymrail.recipe import load_recipe

    words = [*(overrides or ()), *(() if check else ("check=false",))]
    loaded = load_recipe(recipe, words)
    run = find_trainer(loaded.trainer)
    if processes > 1:
        raise typer.Exit(_in_processes(recipe, words, loaded.trainer, processes))
    try:
        run(loaded)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"Interrupted. Go on with:\n  {_resuming(recipe, overrides or ())}", err=True)
        raise typer.Exit(130) from None


def _in_processes(recipe: Path, words: Sequence[str], trainer: str, number: int) -> int:
    import sys

    from gymrail.cli.processes import run_processes
    from gymrail.errors import InputError

    if trainer in _ALONE:
        raise InputError(f"--processes is {number}, and trainer {trainer} {_ALONE[trainer]}")
    try:
        return run_processes([sys.executable, "-m", "gymrail", "train", str(recipe), *words], number)
    except KeyboardInterrupt:
        return 130


def _resuming(recipe: Path, overrides: Sequence[str]) -> str:
    import os

    words = ["gymrail", "train", str(recipe), *(word for word in overrides if not word.startswith("resume="))]
    number = os.environ.get("WORLD_SIZE", "1")
    return shlex.join([*words, "resume=true", *(["--processes", number] if number != "1" else [])])


def find_trainer(name: str) -> Callable[[Recipe], None]:
    """Load a trainer by name.

    Raises:
        InputError: there is none; the text names the nearest, or the package that is missing.
    """
    import importlib.metadata

    from gymrail.errors import InputError, did_you_mean

    points = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    if name not in points:
        raise InputError(f"No trainer named {name!r}. {did_you_mean(name, points)}")
    try:
        return points[name].load()
    except ImportError as error:
        if "pip install" in str(error):  # the adapter's own sentence
            raise InputError(str(error)) from error
        distribution = points[name].dist
        package = distribution.name if distribution is not None else name
        wanted = f"gymrail[{name}]" if package == "gymrail" else package
        message = f"The trainer {name!r} of the package {package!r} cannot be loaded: {error}."
        raise InputError(f"{message} Install what it needs: pip install '{wanted}'") from error
