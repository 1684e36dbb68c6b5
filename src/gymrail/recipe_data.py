"""A recipe's `data`, looked at before anything loads: a run, an export of the right kind, or a file of rows."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gymrail.collect.run_directory import RunDirectory
from gymrail.errors import InputError
from gymrail.recipe import Recipe

_SUMMARY = "export.json"
"""As `gymrail.data.export.write` names it, which takes longer to import than the check may."""


def check_data(recipe: Recipe, destinations: Collection[str]) -> None:
    """Check that a trainer can read what an sft or dpo recipe names.

    Args:
        destinations: the programs whose exports the trainer reads, as `gymrail export --for` names them; the first is
            told to who has another.

    Raises:
        InputError: a source does not exist, is no run, or is an export for something else.
    """
    for source in recipe.data:
        path = Path(source)
        if not path.exists():
            raise InputError(
                f"data: '{source}' is neither a run directory, an export nor a JSONL file: nothing has that name. "
                "The head of the recipe says how its data are made, such as by gymrail rollout."
            )
        if (path / _SUMMARY).is_file():
            _check_export(recipe, source, path, destinations)
        elif path.is_dir():
            RunDirectory.open(path)


def _check_export(recipe: Recipe, source: str, path: Path, destinations: Collection[str]) -> None:
    summary: dict[str, Any] = json.loads((path / _SUMMARY).read_text(encoding="utf-8"))
    kind, destination = summary.get("kind", recipe.algorithm), summary.get("for", next(iter(destinations)))
    if kind == recipe.algorithm and destination in destinations:
        return
    wanted = next(iter(destinations))
    raise InputError(
        f"data: '{source}' is an export of {kind} for {destination}, and the recipe trains {recipe.algorithm} with "
        f"{recipe.trainer}. Name the run directory, or export it again: gymrail export {recipe.algorithm} RUN "
        f"-o DIR --for {wanted}"
    )
