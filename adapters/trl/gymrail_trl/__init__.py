"""Train on Gymrail environments with TRL.

`RolloutFunction` plays our agents over the trainer's live policy (GRPO); `environment_factory` gives TRL's own loop our
environments; `reward_function` is a plain reward for single-turn ones; `train_as_sampled` has SFT and DPO trainers
train on what a policy samples alone; `train` runs a recipe.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "RolloutFunction": "gymrail_trl.rollout",
    "environment_dataset": "gymrail_trl.environment",
    "environment_factory": "gymrail_trl.environment",
    "group_dataset": "gymrail_trl.dataset",
    "groups_needed": "gymrail_trl.dataset",
    "make_tiny_policy": "gymrail_trl.tiny",
    "reward_dataset": "gymrail_trl.reward",
    "reward_function": "gymrail_trl.reward",
    "train": "gymrail_trl.train",
    "train_as_sampled": "gymrail_trl.as_sampled",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gymrail_trl' has no attribute {name!r}")
    import importlib
    import importlib.util

    # Not an import of TRL: what a recipe gets wrong is to be told before that, which takes seconds.
    if importlib.util.find_spec("trl") is None:
        raise ImportError("The TRL adapter needs TRL, Transformers and torch: pip install 'gymrail[trl]'")
    return getattr(importlib.import_module(_HOMES[name]), name)
