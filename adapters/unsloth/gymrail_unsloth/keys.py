"""The keys that `settings` may have under Unsloth: TRL's, those that Unsloth adds, and not those that a recipe sets
elsewhere.

Unsloth takes long to import, TRL must not be imported before it, and a misspelt key should not wait for either; see
`gymrail_trl.keys`.
"""

from __future__ import annotations

from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail_trl.keys import check_names, settings_of
from gymrail_trl.keys import known_keys as trl_keys

ADDED = frozenset(
    {"unsloth_num_chunks", "unsloth_logit_chunk_multiplier", "unsloth_grpo_mini_batch", "vllm_sampling_params"}
)
"""Keys that Unsloth adds to all three classes."""
OURS = {"use_vllm": "unsloth.fast_inference", "vllm_mode": "unsloth.fast_inference"}
"""Keys that a recipe for Unsloth sets elsewhere, and where."""


def check_keys(recipe: Recipe) -> None:
    """Refuse settings that TRL's class has no key for, or that the recipe sets elsewhere.

    Raises:
        InputError: with the nearest key, or the right place.
    """
    for place, algorithm, settings in settings_of(recipe):
        for key in OURS.keys() & settings.keys():
            raise InputError(f"{place}.{key}: set {OURS[key]} instead; under Unsloth vLLM shares the weights.")
        engine = {"use_vllm": recipe.unsloth.fast_inference} if algorithm == "grpo" else {}
        check_names(place, algorithm, {**settings, **engine}, known_keys(algorithm))


def known_keys(algorithm: str) -> frozenset[str]:
    """Return the fields of TRL's configuration class and Unsloth's; none where the sources lie elsewhere."""
    known = trl_keys(algorithm)
    return known | ADDED if known else known
