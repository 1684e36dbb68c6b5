"""The checklist from its first line to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gymrail.errors import GymrailError, attempt
from gymrail.recipe import Recipe
from gymrail.validation.environments import check_environments, load_environment
from gymrail.validation.orchestration import check_orchestration
from gymrail.validation.plan import Plan
from gymrail.validation.report import GROUPS, Line, Points
from gymrail.validation.several import check_several

CheckTrainer = Callable[[Plan], Iterator[Line]]
"""What a trainer's package has as `check_trainer` in its module `validation`: the lines of the groups `endpoint`,
`tokens` and `loop`."""


def validate_trainer(
    recipe: Recipe,
    check_trainer: CheckTrainer,
    *,
    directory: Path,
    model: str = "tiny",
    steps: int = 4,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    notes: list[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Line]:
    """Run the checklist on a recipe and yield its lines as they are done.

    Args:
        directory: where everything is written.
        model: `tiny`, made on the spot, or a checkpoint; it takes the place of the recipe's model.
        steps: optimiser steps, at least.
        settings: settings of environments, by their entries' names, over those of the recipe.
        notes: filled with what was put in the place of something of the recipe.
        say: told what takes a while.
    """
    if not recipe.mixture:
        why = f"the recipe has no mixture, so there is no environment to check algorithm {recipe.algorithm} with"
        for group in GROUPS:
            yield Points(group).skipped(GROUPS[group].lower(), why, "Give the recipe a `mixture`.")
        return
    settings = settings or {}
    loaded = [(entry, *load_environment(entry, settings.get(entry.environment, {}))) for entry in recipe.mixture]
    yield from (line for _, _, line in loaded if line is not None)
    pairs = [(entry, spec) for entry, spec, _ in loaded if spec is not None]
    yield from _until_broken("environments", lambda: check_environments(pairs, settings, recipe.seed))
    if len(pairs) < len(loaded):
        for group in list(GROUPS)[1:]:
            why = "an environment of the recipe does not load"
            yield Points(group).skipped(GROUPS[group].lower(), why, "See Environments from YAML.")
        return
    specs = [spec for _, spec in pairs]
    plan = Plan(recipe, specs, model, steps, directory, [] if notes is None else notes, say)
    parts: list[tuple[str, Callable[[], Iterator[Line]]]] = [
        ("several", lambda: check_several(plan)),
        ("orchestration", lambda: check_orchestration(plan)),
        ("loop", lambda: check_trainer(plan)),
    ]
    for group, part in parts:
        yield from _until_broken(group, part)


def _until_broken(group: str, part: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """Yield a part's lines; where it breaks, one more that says how."""
    lines = part()
    last = ""
    while True:
        line, error = attempt(_next, lines)
        if error is not None:
            if not isinstance(error, Exception):
                raise error
            said = str(error) if isinstance(error, GymrailError) else f"{type(error).__name__}: {error}"
            after = f" after '{last}'" if last else ""
            yield Points(group).failed(f"broke off{after}", said, "The lines that follow were not run.")
            return
        if line is None:
            return
        group, last = line.group, line.name
        yield line


def _next(lines: Iterator[Line]) -> Line | None:
    return next(lines, None)
