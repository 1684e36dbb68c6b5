"""`gymrail train`: run a recipe with the trainer that it names."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gymrail.recipe import Recipe

GROUP = "gymrail.trainers"
"""Entry points of this group are functions that take a recipe and train."""


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe, a YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Recipe keys to set, such as settings.max_steps=20.", show_default=False
        ),
    ] = None,
) -> None:
    """Train by a recipe: GRPO, SFT, DPO, or stages that collect and train in turn, on one environment or a mixture.

    KEY=VALUE replaces a key of the recipe; dots reach into it, values are YAML.
    """
    from gymrail.recipe import load_recipe

    loaded = load_recipe(recipe, list(overrides or ()))
    run = find_trainer(loaded.trainer)
    try:
        run(loaded)
    except KeyboardInterrupt:
        words = ["gymrail", "train", str(recipe), *(word for word in overrides or () if not word.startswith("resume="))]
        typer.echo(f"Interrupted. Go on with:\n  {shlex.join([*words, 'resume=true'])}", err=True)
        raise typer.Exit(130) from None


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
