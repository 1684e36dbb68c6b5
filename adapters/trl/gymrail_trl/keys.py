"""The keys of a recipe's `settings`, looked up in the source of TRL's configuration classes.

Importing TRL takes seconds, and a misspelt key should not wait for that. What the source says is enough for names;
values are checked by the class itself, once it is loaded (`settings.build_config`).
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gymrail.errors import InputError, did_you_mean
from gymrail.recipe import Recipe

_EVERYWHERE = {"seed": "seed", "output_dir": "output", "resume_from_checkpoint": "resume"}
CONFIGS = {"grpo": "GRPOConfig", "sft": "SFTConfig", "dpo": "DPOConfig"}
OURS: dict[str, dict[str, str]] = {
    "grpo": {
        "temperature": "sampling.temperature",
        "top_p": "sampling.top_p",
        "max_completion_length": "sampling.max_output_tokens and sampling.context_length",
        "shuffle_dataset": "the mixture, which keeps its own order",
        "max_tool_calling_iterations": "agent.max_steps",
        **_EVERYWHERE,
    },
    "sft": {**_EVERYWHERE, "assistant_only_loss": "always on for conversations"},
    "dpo": dict(_EVERYWHERE),
}
"""Keys that a recipe sets elsewhere, and where."""
_LOADED = "Gymrail loads the checkpoint itself: see `dtype`, `lora` and `unsloth`"
_SAMPLED = "Gymrail samples the episodes itself, by sampling.temperature and sampling.top_p alone"
UNUSED: dict[str, dict[str, str]] = {
    "grpo": {
        "model_init_kwargs": _LOADED,
        "trust_remote_code": _LOADED,
        "chat_template_kwargs": "prompts are rendered by the checkpoint's chat template as it stands; change it there",
        "cache_implementation": _SAMPLED,
        "transformers_continuous_batching_config": _SAMPLED,
        "use_transformers_continuous_batching": _SAMPLED,
        "use_transformers_paged": _SAMPLED,
    },
    "sft": {"model_init_kwargs": _LOADED, "trust_remote_code": _LOADED},
    "dpo": {
        "model_init_kwargs": _LOADED,
        "trust_remote_code": _LOADED,
        "precompute_ref_log_probs": "they would be of rows that still have what no policy samples (docs/trl.md)",
    },
}
"""Keys that would change nothing in a recipe's run, or spoil it, and why."""
_OF_THE_ENGINE = ("generation_kwargs", "min_p", "repetition_penalty", "top_k", "vllm_structured_outputs_regex")
"""What TRL passes to a vLLM of its own, and to nothing else that a recipe samples with."""
_NEUTRAL = {"repetition_penalty": 1.0}
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
    """Refuse a key that is not known, that the recipe sets elsewhere, or that would change nothing; where no keys are
    known, only the last two.

    Raises:
        InputError: with the nearest key, or the right place.
    """
    for key in settings:
        if key in OURS[algorithm]:
            raise InputError(f"{place}.{key}: set {OURS[algorithm][key]} instead; the recipe keeps the two in step.")
        if key in UNUSED[algorithm] and settings[key]:
            raise InputError(f"{place}.{key} is {settings[key]!r}: {UNUSED[algorithm][key]}. Leave it out.")
        neutral = (None, 0, {}, _NEUTRAL.get(key))
        if key in _OF_THE_ENGINE and settings[key] not in neutral and not _has_engine(settings):
            raise InputError(
                f"{place}.{key} is {settings[key]!r}: {_SAMPLED}; only a vLLM in the trainer's own process (use_vllm, "
                "vllm_mode: colocate) knows this key. Leave it out."
            )
        if key == "loss_type" and algorithm == "grpo" and (losses := loss_types()) and settings[key] not in losses:
            raise InputError(f"{place}.{key} is {settings[key]!r}. {did_you_mean(str(settings[key]), losses)}")
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
        path = _source(package, file.format(algorithm))
        if path is None:
            return frozenset()
        found |= set(_fields(path))
    return frozenset(found)


@functools.cache
def loss_types() -> frozenset[str]:
    """Return the losses that TRL's GRPO trainer tells apart; none where its source lies elsewhere. TRL itself refuses
    another only once the first batch is played."""
    path = _source("trl", "trainer/grpo_trainer.py")
    text = path.read_text(encoding="utf-8") if path is not None else ""
    told = re.findall(r"self\.loss_type (?:==|in) (\[[^\]]*\]|\"\w+\")", text)
    return frozenset(name for words in told for name in re.findall(r"\w+", words))


def _source(package: str, file: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    folder = next(iter(spec.submodule_search_locations or []), None) if spec else None
    path = Path(folder or "", file)
    return path if folder is not None and path.is_file() else None


def _has_engine(settings: Mapping[str, Any]) -> bool:
    is_on = str(settings.get("use_vllm", False)).lower() in ("true", "1", "yes", "on")
    return is_on and settings.get("vllm_mode", "colocate") == "colocate"


def _fields(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name in _CLASSES:
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    yield statement.target.id
