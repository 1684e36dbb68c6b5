"""The keys of a recipe's `settings`, looked up in the source of TRL's configuration classes.

Importing TRL takes seconds, and a misspelt key should not wait for that. What the source says is enough for names;
values are checked by the class itself, once it is loaded (`settings.build_config`).
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gymrail.errors import InputError, did_you_mean
from gymrail.recipe import Recipe

CONFIGS = {"grpo": "GRPOConfig", "sft": "SFTConfig", "dpo": "DPOConfig"}
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
_SOURCES = (("trl", "trainer/{}_config.py"), ("trl", "trainer/base_config.py"), ("transformers", "training_args.py"))
_CLASSES = frozenset({*CONFIGS.values(), "_BaseConfig", "TrainingArguments"})


def check_keys(recipe: Recipe) -> None:
    """Refuse settings that TRL's classes have no key for, or that the recipe sets elsewhere.

    Raises:
        InputError: with the nearest key, or the right place.
    """
    for place, algorithm, settings in settings_of(recipe):
        check_names(place, algorithm, settings, known_keys(algorithm))


def check_names(place: str, algorithm: str, settings: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse a key that is not known, or that the recipe sets elsewhere; where nothing is known, only the latter.

    Raises:
        InputError: with the nearest key, or the right place.
    """
    for key in settings:
        if key in OURS[algorithm]:
            raise InputError(f"{place}.{key}: set {OURS[algorithm][key]} instead; the recipe keeps the two in step.")
        if known and key not in known:
            raise InputError(f"{place}.{key}: {CONFIGS[algorithm]} has no such key. {did_you_mean(key, known)}")


def settings_of(recipe: Recipe) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield every group of trainer settings in a recipe: where it stands, its algorithm, its keys and values."""
    if recipe.algorithm != "iterated":
        yield "settings", recipe.algorithm, recipe.settings
    if recipe.warm_start is not None:
        yield "warm_start.settings", "sft", recipe.warm_start.settings
    for number, stage in enumerate(recipe.stages):
        if section := stage.sft or stage.dpo:
            yield f"stages.{number}.{stage.kind}.settings", stage.kind, section.settings


def known_keys(algorithm: str) -> frozenset[str]:
    """Return the fields of TRL's configuration class; none where the sources lie elsewhere than we know of."""
    found: set[str] = set()
    for package, file in _SOURCES:
        spec = importlib.util.find_spec(package)
        folder = next(iter(spec.submodule_search_locations or []), None) if spec else None
        path = Path(folder or "", file.format(algorithm))
        if folder is None or not path.is_file():
            return frozenset()
        found |= set(_fields(path))
    return frozenset(found)


def _fields(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name in _CLASSES:
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    yield statement.target.id
