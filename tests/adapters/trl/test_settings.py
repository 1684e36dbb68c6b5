"""A recipe's settings are checked against TRL's own classes before anything loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail_trl.dataset import groups_needed
from gymrail_trl.grpo import check_config
from gymrail_trl.settings import build_config


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "t", "algorithm": "grpo", "model": "tiny", "mixture": [{"environment": "word_math"}], **fields}
    )


def test_an_unknown_setting_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"settings\.learning_rat: GRPOConfig has no such key\. Did you mean 'learning_rate'\?"
    ):
        build_config(recipe(), "grpo", {"learning_rat": 1e-3}, tmp_path)


def test_a_setting_that_the_recipe_owns_says_where_it_is_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set sampling\.temperature instead"):
        build_config(recipe(), "grpo", {"temperature": 0.7}, tmp_path)


def test_a_value_that_trl_refuses_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="GRPOConfig refuses the settings"):
        build_config(recipe(), "grpo", {"num_generations": 3, "per_device_train_batch_size": 4}, tmp_path)


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    settings = {"learning_rate": "1e-5", "num_generations": 2, "per_device_train_batch_size": 2}
    assert build_config(recipe(), "grpo", settings, tmp_path).learning_rate == 1e-5


def test_the_recipe_s_sampling_seed_and_order_reach_trl(tmp_path: Path) -> None:
    config = build_config(
        recipe(seed=7, sampling={"temperature": 0.7, "context_length": 99}),
        "grpo",
        {"num_generations": 2, "per_device_train_batch_size": 2},
        tmp_path,
    )
    assert (config.seed, config.temperature, config.max_completion_length, config.shuffle_dataset) == (
        7,
        0.7,
        99,
        False,
    )


def test_a_checkpoint_that_would_cut_a_batch_in_two_is_refused(tmp_path: Path) -> None:
    settings = {
        "max_steps": 8,
        "num_generations": 2,
        "per_device_train_batch_size": 2,
        "steps_per_generation": 4,
        "save_steps": 6,
    }
    with pytest.raises(InputError, match="multiple of 4"):
        check_config(build_config(recipe(), "grpo", settings, tmp_path))


def test_a_mixture_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_steps"):
        check_config(build_config(recipe(), "grpo", {"num_generations": 2, "per_device_train_batch_size": 2}, tmp_path))


@pytest.mark.parametrize(
    ("settings", "groups"),
    [
        ({"max_steps": 8, "per_device_train_batch_size": 8, "num_generations": 4}, 16),
        ({"max_steps": 8, "per_device_train_batch_size": 8, "num_generations": 4, "steps_per_generation": 4}, 16),
        (
            {
                "max_steps": 8,
                "per_device_train_batch_size": 8,
                "num_generations": 4,
                "steps_per_generation": 2,
                "num_iterations": 2,
            },
            8,
        ),
        (
            {"max_steps": 4, "per_device_train_batch_size": 8, "num_generations": 4, "gradient_accumulation_steps": 2},
            16,
        ),
    ],
)
def test_the_dataset_holds_the_groups_that_a_run_draws(settings: dict[str, Any], groups: int, tmp_path: Path) -> None:
    assert groups_needed(build_config(recipe(), "grpo", settings, tmp_path)) == groups
