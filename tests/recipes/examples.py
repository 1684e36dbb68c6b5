"""The repository's recipes, and tasks for those whose files the user brings."""

from __future__ import annotations

import json
from pathlib import Path

from gymrail.data.jsonl import write_jsonl
from gymrail.recipe import load_recipe
from gymrail.registry import find

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(path for path in FOLDER.glob("*/*.yaml") if path.parent.name != "accelerate")


def of_trainer(*trainers: str) -> list[Path]:
    """The recipes of these trainers."""
    return [path for path in RECIPES if load_recipe(path).trainer in trainers]


def with_examples(path: Path, folder: Path) -> list[str]:
    """Return overrides that put the environments' own examples in the place of the files that a recipe names."""
    overrides = []
    for place, entry in enumerate(load_recipe(path).mixture):
        files = {split: str(folder / f"{place}_{split}.jsonl") for split in entry.files}
        for file in files.values():
            folder.mkdir(parents=True, exist_ok=True)
            write_jsonl((task.row for task in find(entry.environment).tasks("example")), Path(file))
        if files:
            overrides.append(f"mixture.{place}.files={json.dumps(files)}")
    return overrides
