"""From a recipe to NeMo RL's configuration and data files, without NeMo RL."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gymrail.errors import InputError
from gymrail.recipe import Recipe, load_recipe
from gymrail_nemo_rl.configuration import configuration
from gymrail_nemo_rl.tasks import write_tasks

ROOT = Path(__file__).parents[3]
GRPO = sorted((ROOT / "recipes" / "grpo").glob("nemo_rl_*.yaml"))
SUPERVISED = sorted(path for name in ("dpo", "sft") for path in (ROOT / "recipes" / name).glob("nemo_rl_*.yaml"))
SOURCE = Path("/checkout")


def made(path: Path, folder: Path, *overrides: str) -> tuple[Recipe, dict[str, Any]]:
    recipe = load_recipe(path, [f"output={folder / 'run'}", *overrides])
    specs = recipe.specs()
    data = {"train": folder / "train.jsonl"}
    if recipe.algorithm == "grpo":
        data = write_tasks(recipe, specs, folder)
    return recipe, configuration(recipe, specs, SOURCE, data)


@pytest.mark.parametrize("path", [*GRPO, *SUPERVISED], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_becomes_a_configuration_that_inherits_from_an_example_of_the_checkout(
    path: Path, tmp_path: Path
) -> None:
    small = ["settings.grpo.max_num_steps=1"] if path in GRPO else []
    recipe, config = made(path, tmp_path, *small)
    assert config["defaults"].startswith("/checkout/examples/configs/")
    assert config["policy"]["model_name"] == recipe.model
    assert config["checkpointing"]["checkpoint_dir"] == str(tmp_path / "run" / "checkpoints")
    assert config["logger"]["log_dir"] == str(tmp_path / "run" / "logs")
    assert config["data"]["_override_"]
    assert "gymrail" not in config


def test_the_native_environment_is_told_the_mixture_and_its_limits(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text((ROOT / "tests" / "interop" / "inside_nemo_rl" / "keypad.py").read_text("utf-8"), encoding="utf-8")
    mixture = f"mixture=[{{environment: mcqa, config: {{}}}}, {{environment: {own}}}]"
    small = ["settings.grpo.max_num_steps=1", "agent.max_steps=5", "evaluation=null", "settings.grpo.val_period=0"]
    _, config = made(GRPO[0], tmp_path, mixture, *small)
    assert config["env"] == {
        "_override_": True,
        "gymrail": {
            "environments": [{"source": "mcqa", "config": {}}, {"source": str(own), "config": {}}],
            "max_steps": 5,
            "limits": {
                "call_seconds": 60.0, "episode_seconds": 3600.0, "tool_call_limit": None, "time_limit_seconds": None,
                "idle_seconds": 3600.0,
            },
            "run": str(tmp_path / "run"),
            "tokenizer": "${policy.tokenizer}",
            "max_new_tokens": "${policy.generation.max_new_tokens}",
            "max_total_sequence_length": "${policy.max_total_sequence_length}",
        },
    }  # fmt: skip
    assert config["grpo"]["max_rollout_turns"] == 5
    assert config["grpo"]["overlong_filtering"] is True
    assert config["data"]["validation"] is None
    assert config["data"]["default"]["dataset_name"] == "gymrail_nemo_rl.dataset.TaskDataset"


def test_through_nemo_gym_every_environment_is_an_agent_that_nobody_starts(tmp_path: Path) -> None:
    mixture = "mixture=[{environment: mcqa}, {environment: word_math}]"
    _, config = made(GRPO[1], tmp_path, mixture, "settings.grpo.max_num_steps=1", "settings.gymrail.agent_port=7001")
    gym = config["env"]["nemo_gym"]
    for name in ("mcqa", "word_math"):
        assert gym[name] == {"responses_api_agents": {name: {"host": "127.0.0.1", "port": 7001}}}
    assert gym["policy_model"]["responses_api_models"]["vllm_model"]["port"] == 5989
    assert config["env"]["should_mask_flagged_samples"] is True
    generation = config["policy"]["generation"]
    assert generation["vllm_cfg"]["expose_http_server"]
    assert generation["top_k"] is None
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 64
    assert {row["agent_ref"]["name"] for row in rows} == {"mcqa", "word_math"}
    assert len({row["_ng_task_index"] for row in rows}) == 64


def test_the_data_file_is_the_mixture_in_its_order_and_by_its_weights(tmp_path: Path) -> None:
    recipe, config = made(GRPO[0], tmp_path, "settings.grpo.max_num_steps=5")
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text("utf-8").splitlines()]
    assert [row["task_index"] for row in rows] == list(range(5 * 16))
    shares = Counter(row["environment"] for row in rows)
    assert shares == {"word_math": 32, "treasure_hunt": 48}
    assert not config["data"]["shuffle"]
    assert all(isinstance(row["tools"], list) for row in rows)
    held_out = (tmp_path / "validation.jsonl").read_text("utf-8").splitlines()
    assert recipe.evaluation is not None
    assert len(held_out) == 2 * recipe.evaluation.tasks == config["grpo"]["max_val_samples"]


def test_lora_becomes_nemo_rls_own(tmp_path: Path) -> None:
    _, config = made(SUPERVISED[0], tmp_path, "lora={r: 4, alpha: 8, target_modules: [q_proj]}")
    lora = config["policy"]["dtensor_cfg"]["lora_cfg"]
    assert lora == {
        "enabled": True, "dim": 4, "alpha": 8, "dropout": 0.0, "match_all_linear": False, "target_modules": ["q_proj"],
    }  # fmt: skip


def test_settings_have_the_last_word_over_what_we_write(tmp_path: Path) -> None:
    _, config = made(SUPERVISED[1], tmp_path, "settings.logger.wandb_enabled=true", "settings.sft.val_period=5")
    assert config["logger"]["wandb_enabled"] is True
    assert config["sft"]["val_period"] == 5


def test_an_unknown_environment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'word_math'"):
        made(GRPO[0], tmp_path, "mixture=[{environment: word_mat}]")
