"""Which keys NeMo RL's configuration has, and a check that a configuration has no other.

NeMo RL's classes take unknown keys and have a default for most of what is missing, so a misspelt key trains with the
default, in silence. The key tree stands in `config_keys.json`, read from a checkout by `read_keys`; so settings are
checked where NeMo RL is not installed, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from gymrail.errors import InputError, did_you_mean

EXAMPLES = {
    "grpo": "examples/configs/grpo_math_1B.yaml",
    "sft": "examples/configs/sft.yaml",
    "dpo": "examples/configs/dpo.yaml",
}
"""The configurations of a NeMo RL checkout that ours inherit from."""

PUBLISHED = {
    "workplace_assistant": "examples/nemo_gym/grpo_workplace_assistant_nemotron_nano_v2_9b.yaml",
    "dapo_7b": "examples/configs/recipes/llm/dapo-qwen2.5-7b.v2.yaml",
    "nemotron_3_nano": "examples/nemo_gym/grpo_nanov3.yaml",
    "nemotron_3_super_rlvr": "examples/nemo_gym/nemotron-3-super/stage1_rlvr.yaml",
    "nemotron_3_super_rlhf": "examples/nemo_gym/nemotron-3-super/stage3_rlhf.yaml",
}
"""Published GRPO settings in a checkout that a recipe may inherit from instead (`settings.gymrail.example`)."""

TESTED_COMMIT = "7ea279abfbeb698b092856d0dab61e7cf39bc909"
"""The NeMo RL commit that the key tree was read from and that the tests ran against."""

_ANYTHING = frozenset({"env", "vllm_kwargs", "data.train", "data.validation", "data.default"})
"""Sections whose content is their owner's: an environment's, vLLM's, a dataset class's."""
_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (int, float), "str": (str,), "null": (type(None),), "list": (list,),
}  # fmt: skip


def check_settings(settings: Mapping[str, Any], algorithm: str, where: str = "settings") -> None:
    """Check the part of a configuration that a recipe sets.

    Raises:
        InputError: a key that NeMo RL does not have (with the nearest), or a value of the wrong type.
    """
    for problem in _problems(settings, _trees()[algorithm], where, complete=False):
        raise InputError(problem if problem.endswith("?") else f"{problem}.")


def problems_of(config: Mapping[str, Any], algorithm: str) -> list[str]:
    """Return what is wrong with a complete configuration: unknown keys, missing keys, values of the wrong type."""
    return list(_problems(config, _trees()[algorithm], "", complete=True))


@cache
def _trees() -> dict[str, Any]:
    return json.loads(resources.files("gymrail_nemo_rl").joinpath("config_keys.json").read_text(encoding="utf-8"))


def _problems(value: Any, node: Mapping[str, Any], where: str, *, complete: bool) -> Iterator[str]:
    if isinstance(value, Mapping) and "keys" in node:
        known = node["keys"]
        for name, below in value.items():
            path = f"{where}.{name}" if where else str(name)
            if name not in known:
                yield f"{path}: NeMo RL has no such key. {did_you_mean(str(name), known)}".removesuffix(".")
            elif name not in _ANYTHING and path.removeprefix("settings.") not in _ANYTHING:
                yield from _problems(below, known[name], path, complete=complete)
        if complete:
            for name in node["required"]:
                if name not in value:
                    yield f"{where}.{name}: missing, and NeMo RL needs it".removeprefix(".")
    elif isinstance(value, list) and "items" in node:
        for place, item in enumerate(value):
            yield from _problems(item, node["items"], f"{where}.{place}", complete=complete)
    elif not _fits(value, node):
        yield f"{where} is {value!r}; NeMo RL takes {_wanted(node)}"


def _fits(value: Any, node: Mapping[str, Any]) -> bool:
    if not node or (isinstance(value, str) and "${" in value):  # anything goes, or it is filled in later
        return True
    if "values" in node and any(type(value) is type(known) and value == known for known in node["values"]):
        return True
    if isinstance(value, bool):
        return "bool" in node.get("types", ())
    return any(isinstance(value, _TYPES[name]) for name in node.get("types", ()))


def _wanted(node: Mapping[str, Any]) -> str:
    names = [*node.get("types", ()), *(repr(value) for value in node.get("values", ()))]
    return " or ".join([*names, *(["a mapping"] if "keys" in node else [])])
