"""A recipe's settings are checked against TRL's own classes before anything loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail_trl import requirements
from gymrail_trl.dataset import groups_needed
from gymrail_trl.grpo import check_config
from gymrail_trl.keys import check_names, known_keys, loss_types
from gymrail_trl.requirements import check_evaluation, check_options
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


@pytest.mark.parametrize(
    ("algorithm", "settings", "words"),
    [
        ("grpo", {"top_k": 20}, r"settings\.top_k is 20: .*sampling\.temperature and sampling\.top_p alone"),
        ("grpo", {"top_k": 20, "use_vllm": True, "vllm_mode": "server"}, r"settings\.top_k is 20"),
        ("grpo", {"chat_template_kwargs": {"enable_thinking": False}}, "chat template as it stands"),
        ("grpo", {"use_transformers_continuous_batching": True}, "samples the episodes itself"),
        ("grpo", {"max_tool_calling_iterations": 4}, r"set agent\.max_steps instead"),
        ("sft", {"trust_remote_code": True}, "Gymrail loads the checkpoint itself"),
        ("dpo", {"precompute_ref_log_probs": True}, "no policy samples"),
        ("dpo", {"resume_from_checkpoint": "x"}, "set resume instead"),
        ("grpo", {"learning_rate": "abc"}, r"settings\.learning_rate is 'abc'; GRPOConfig takes float"),
        ("sft", {"max_steps": 2.5}, r"settings\.max_steps is 2\.5; SFTConfig takes int"),
        ("grpo", {"loss_type": "dapoo"}, "Did you mean 'dapo'"),
    ],
)
def test_a_setting_that_cannot_work_or_would_change_nothing_is_refused_with_the_reason(
    algorithm: str, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        build_config(recipe(), algorithm, settings, tmp_path)


def test_a_setting_at_its_neutral_value_or_of_an_engine_that_knows_it_is_taken() -> None:
    known = known_keys("grpo")
    check_names("settings", "grpo", {"top_k": 0, "repetition_penalty": 1.0, "trust_remote_code": False}, known)
    check_names("settings", "grpo", {"top_k": 20, "use_vllm": True}, known)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"settings": {"eval_strategy": "steps"}}, "give the recipe an `evaluation`"),
        (
            {"algorithm": "sft", "data": ["."], "settings": {"eval_strategy": "steps"}, "evaluation": {}},
            "measures before and after training",
        ),
    ],
)
def test_the_trainer_s_own_evaluation_needs_held_out_tasks(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_evaluation(recipe(**fields))
    check_evaluation(recipe(settings={"eval_strategy": "steps"}, evaluation={}))
    check_evaluation(recipe(settings={"eval_strategy": False}))


def test_processes_do_not_share_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "count_gpus", lambda: 2)
    settings = {"use_vllm": True, "vllm_tensor_parallel_size": 2}
    with pytest.raises(InputError, match="vllm_mode=server"):
        check_options(recipe(settings=settings))


def test_a_share_of_the_steps_that_would_cut_a_batch_in_two_is_refused_too(tmp_path: Path) -> None:
    batch = {"num_generations": 2, "per_device_train_batch_size": 2, "steps_per_generation": 4, "max_steps": 20}
    check_config(build_config(recipe(), "grpo", {**batch, "save_steps": 0.2}, tmp_path))
    with pytest.raises(InputError, match="save every multiple of 4"):
        check_config(build_config(recipe(), "grpo", {**batch, "save_steps": 0.3}, tmp_path))


def test_an_unknown_scale_of_rewards_is_refused_before_a_batch_is_played(tmp_path: Path) -> None:
    batch = {"num_generations": 2, "per_device_train_batch_size": 2, "max_steps": 4}
    check_config(build_config(recipe(), "grpo", {**batch, "scale_rewards": False}, tmp_path))
    with pytest.raises(InputError, match="'grop'; TRL knows batch, group and none"):
        check_config(build_config(recipe(), "grpo", {**batch, "scale_rewards": "grop"}, tmp_path))


def test_every_loss_of_trl_s_is_known() -> None:
    assert loss_types() >= {"grpo", "dr_grpo", "dapo", "bnpo", "cispo"}
