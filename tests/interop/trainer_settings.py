"""The configuration objects that a trainer makes of recipes, as JSON: run by the Python of each trainer's environment.

python trainer_settings.py trl|unsloth OUT RECIPE...
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any


def main(trainer: str, out: str, *recipes: str) -> None:
    from gymrail.recipe import load_recipe

    if trainer == "unsloth":
        from gymrail_unsloth import start_unsloth
        from gymrail_unsloth.train import with_trl_defaults

        start_unsloth(Path(out).with_suffix(".compiled"))
    from gymrail_trl.grpo import check_config
    from gymrail_trl.settings import build_config

    found: dict[str, dict[str, Any]] = {}
    for path in recipes:
        recipe = load_recipe(path)
        settings = recipe.settings
        if trainer == "unsloth":
            settings = with_trl_defaults(recipe).settings
        config = build_config(recipe, recipe.algorithm, settings, Path("checkpoints"))
        if recipe.algorithm == "grpo":
            check_config(config)
        names = [field.name for field in dataclasses.fields(config)]
        found[path] = {name: str(getattr(config, name, None)) for name in names}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
