"""What a recipe says becomes what Unsloth is called with; TRL's defaults hold in its settings."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trl.trainer.grpo_config import GRPOConfig

from gymrail.errors import InputError
from gymrail.recipe import Recipe, load_recipe
from gymrail_trl.keys import CONFIGS, settings_of
from gymrail_trl.settings import build_config
from gymrail_unsloth.keys import known_keys
from gymrail_unsloth.loading import adapter_arguments, check_replaced, loading_arguments
from gymrail_unsloth.train import with_trl_defaults

RECIPES = Path(__file__).parents[3] / "recipes"


def recipe(name: str, *overrides: str) -> Recipe:
    return load_recipe(RECIPES / name, overrides)


def test_every_loading_option_of_a_recipe_reaches_unsloth() -> None:
    four = recipe("grpo/unsloth_four_environments.yaml", "seed=5")

    assert loading_arguments(four, "checkpoint") == {
        "model_name": "checkpoint",
        "max_seq_length": 8192,
        "dtype": "bfloat16",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "full_finetuning": False,
        "use_gradient_checkpointing": "unsloth",
        "random_state": 5,
        "fast_inference": True,
        "gpu_memory_utilization": 0.5,
        "max_lora_rank": 32,
    }
    assert adapter_arguments(four) == {
        "r": 32,
        "lora_alpha": 64,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
        "use_gradient_checkpointing": "unsloth",
        "random_state": 5,
    }


def test_without_adapters_the_whole_policy_is_trained_in_its_own_precision() -> None:
    arguments = loading_arguments(recipe("grpo/quickstart.yaml", "trainer=unsloth"), "checkpoint")
    assert arguments["full_finetuning"] is True
    assert arguments["dtype"] is None
    assert not {"fast_inference", "max_lora_rank"} & arguments.keys()


def test_vllm_is_switched_on_by_the_recipe_s_own_option() -> None:
    on = with_trl_defaults(recipe("grpo/unsloth_four_environments.yaml"))
    off = with_trl_defaults(recipe("grpo/unsloth_quickstart.yaml"))
    assert (on.settings["use_vllm"], on.settings["vllm_mode"], off.settings["use_vllm"]) == (True, "colocate", False)


@pytest.mark.parametrize("algorithm", sorted(CONFIGS))
def test_the_keys_read_from_trl_s_source_are_those_of_its_classes(algorithm: str, tmp_path: Path) -> None:
    import importlib

    cls = getattr(importlib.import_module(f"trl.trainer.{algorithm}_config"), CONFIGS[algorithm])
    names = {field.name for field in dataclasses.fields(cls) if field.init}
    known = known_keys(algorithm)
    assert names <= known
    # Beside them only what Unsloth adds and fields that no one may set.
    assert len(known - names) < 15


def test_every_group_of_settings_is_checked_and_spelt_out() -> None:
    stages = recipe("iterated/quickstart.yaml", "trainer=unsloth")
    places = [place for place, _, _ in settings_of(stages)]
    assert places == [
        f"stages.{number}.{stage.kind}.settings" for number, stage in enumerate(stages.stages) if stage.collect is None
    ]
    assert len(places) == 2
    for _, _, settings in settings_of(with_trl_defaults(stages)):
        assert {"learning_rate", "optim", "weight_decay", "gradient_accumulation_steps"} <= settings.keys()
    warm = with_trl_defaults(recipe("grpo/quickstart.yaml", "trainer=unsloth")).warm_start
    assert warm is not None
    assert (warm.settings["learning_rate"], warm.settings["gradient_accumulation_steps"]) == (6e-3, 1)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/unsloth*.yaml")), ids=lambda path: path.stem)
def test_spelling_out_trl_s_defaults_changes_nothing_under_trl(path: Path, tmp_path: Path) -> None:
    ours = load_recipe(path)
    plain = build_config(ours, ours.algorithm, ours.settings, tmp_path).to_dict()
    spelt = build_config(ours, ours.algorithm, with_trl_defaults(ours).settings, tmp_path).to_dict()
    assert {key for key in plain if plain[key] != spelt[key]} <= {"use_vllm"}


def test_a_loss_that_is_named_keeps_trl_s_clipping() -> None:
    named: dict[str, Any] = with_trl_defaults(
        recipe("grpo/unsloth_quickstart.yaml", "settings.loss_type=dapo")
    ).settings
    epsilon = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}["epsilon"]
    assert (named["epsilon_high"], named["mask_truncated_completions"]) == (epsilon, False)


def test_a_trainer_that_unsloth_did_not_replace_stops_the_run() -> None:
    with pytest.raises(InputError, match="did not put its own trainer in place of TRL's GRPOTrainer"):
        check_replaced()


def test_trl_imported_first_is_refused(tmp_path: Path) -> None:
    code = (
        "import trl\nfrom pathlib import Path\nfrom gymrail_unsloth import start_unsloth\n"
        f"start_unsloth(Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert "TRL is imported already, and Unsloth must come before it" in done.stderr
