"""From a recipe to NeMo RL's configuration and data files, without NeMo RL."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from gymrail.data.jsonl import write_jsonl
from gymrail.data.mixture_stream import MixtureStream
from gymrail.errors import InputError
from gymrail.recipe import Recipe, load_recipe
from gymrail.recipe_mixture import mixture_of
from gymrail.registry import find
from gymrail_nemo_rl.configuration import configuration
from gymrail_nemo_rl.keys import PUBLISHED
from gymrail_nemo_rl.settings import check_recipe
from gymrail_nemo_rl.tasks import write_tasks

ROOT = Path(__file__).parents[3]
NATIVE, THROUGH_GYM, SFT, DPO = (
    ROOT / "recipes" / name
    for name in (
        "grpo/nemo_rl_quickstart.yaml",
        "grpo/nemo_rl_workplace_assistant_qwen3_4b.yaml",
        "sft/nemo_rl_from_rollouts.yaml",
        "dpo/nemo_rl_from_rollouts.yaml",
    )
)
SOURCE = Path("/checkout")
SMALL = "settings.grpo.max_num_steps=1"


def made(path: Path, folder: Path, *overrides: str) -> tuple[Recipe, dict[str, Any]]:
    recipe = load_recipe(path, [f"output={folder / 'run'}", *overrides])
    specs = recipe.specs()
    data = {"train": folder / "train.jsonl"}
    if recipe.algorithm == "grpo":
        data = write_tasks(recipe, specs, folder)
    return recipe, configuration(recipe, specs, SOURCE, data)


@pytest.mark.parametrize("path", [NATIVE, THROUGH_GYM, SFT, DPO], ids=lambda path: path.stem)
def test_every_recipe_becomes_a_configuration_that_inherits_from_an_example_of_the_checkout(
    path: Path, tmp_path: Path
) -> None:
    small = ["settings.grpo.max_num_steps=1"] if path.parent.name == "grpo" else []
    recipe, config = made(path, tmp_path, *small)
    assert config["defaults"].startswith("/checkout/examples/")
    assert config["policy"]["model_name"] == recipe.model
    assert config["checkpointing"]["checkpoint_dir"] == str(tmp_path / "run" / "checkpoints")
    assert config["logger"]["log_dir"] == str(tmp_path / "run" / "logs")
    assert config["data"]["_override_"]
    assert "gymrail" not in config


def test_the_native_environment_is_told_the_mixture_and_its_limits(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text((ROOT / "tests" / "interop" / "inside_nemo_rl" / "keypad.py").read_text("utf-8"), encoding="utf-8")
    mixture = f"mixture=[{{environment: mcqa, config: {{}}, reward_scale: 2.0}}, {{environment: {own}}}]"
    small = ["settings.grpo.max_num_steps=1", "agent.max_steps=5", "evaluation=null", "settings.grpo.val_period=0"]
    _, config = made(NATIVE, tmp_path, mixture, *small, "train_truncated=false")
    assert config["env"] == {
        "_override_": True,
        "gymrail": {
            "environments": [
                {"source": "mcqa", "config": {}, "reward_scale": 2.0},
                {"source": str(own), "config": {}, "reward_scale": 1.0},
            ],
            "max_steps": 5,
            "train_truncated": False,
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
    _, config = made(THROUGH_GYM, tmp_path, mixture, SMALL, "settings.gymrail.agent_port=7001")
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
    recipe, config = made(NATIVE, tmp_path, "settings.grpo.max_num_steps=5")
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text("utf-8").splitlines()]
    assert [row["task_index"] for row in rows] == list(range(5 * 16))
    shares = Counter(row["environment"] for row in rows)
    assert shares == {"word_math": 32, "treasure_hunt": 48}
    assert not config["data"]["shuffle"]
    assert all(isinstance(row["tools"], list) for row in rows)
    held_out = (tmp_path / "validation.jsonl").read_text("utf-8").splitlines()
    assert recipe.evaluation is not None
    assert len(held_out) == 2 * recipe.evaluation.tasks == config["grpo"]["max_val_samples"]


def names_by_step(folder: Path, per_step: int) -> list[Counter[str]]:
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) % per_step == 0
    names = [row["environment"] for row in rows]
    return [Counter(names[start : start + per_step]) for start in range(0, len(names), per_step)]


def test_temperature_evens_out_the_shares_as_in_every_other_trainer(tmp_path: Path) -> None:
    words = ["settings.grpo.max_num_steps=8", "mixture.0.weight=1", "mixture.1.weight=9", "mixing.temperature=2"]
    recipe, _ = made(NATIVE, tmp_path, *words)
    assert sum(names_by_step(tmp_path, 16), Counter()) == {"word_math": 32, "treasure_hunt": 96}
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text("utf-8").splitlines()]
    mixture = mixture_of(recipe, recipe.specs())
    expected = [mixture.group(index) for index in range(8 * 16)]
    assert [row["environment"] for row in rows] == [group.spec.name for group in expected]
    assert [row["task"] for row in rows] == [group.task.row for group in expected]


def test_schedules_and_floors_hold_step_by_step(tmp_path: Path) -> None:
    mixture = "mixture=[{environment: word_math, schedule: [[0, 1], [4, 0]]}, {environment: treasure_hunt, floor: 4}]"
    recipe, _ = made(NATIVE, tmp_path, mixture, "settings.grpo.max_num_steps=6")
    steps = names_by_step(tmp_path, 16)
    assert len(steps) == 6
    assert all(step["treasure_hunt"] >= 4 for step in steps)
    assert [step["word_math"] for step in steps] == sorted((step["word_math"] for step in steps), reverse=True)
    assert steps[0]["word_math"] >= 8
    assert steps[4]["word_math"] == steps[5]["word_math"] == 0
    stream = MixtureStream(mixture_of(recipe, recipe.specs()))
    drawn = [[group.spec.name for group in stream.batch(16, step)] for step in range(6)]
    assert steps == [Counter(names) for names in drawn]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mixing.unit=tokens"], "mixing.unit does not go with trainer nemo_rl"),
        (["mixing.curriculum={}"], "use a profile"),
        (["mixing.dynamic_sampling={}"], "settings.grpo.use_dynamic_sampling is NeMo RL's own"),
        (["mixing.late={}"], "set agent.episode_seconds"),
        (["mixture.0.concurrency=4"], "concurrency of word_math does not go with"),
        (["mixture.0.deadline_seconds=4"], "deadline_seconds of word_math does not go with"),
        (["mixture.0.reward_scale=2", "settings.gymrail.path=nemo_gym"], "set settings.gymrail.path to native"),
        (["mixture.0.floor=10", "mixture.1.floor=10"], "floors of the mixture sum to 20, and a batch has 16"),
        (["mixture.0={environment: word_math, limit: 3, epochs: 1}",
          "mixture.1={environment: treasure_hunt, limit: 3, epochs: 1}"], "epochs have 6 groups, and the run draws 32"),
        (["mixture.0={environment: word_math, schedule: [[0, 1], [4, 2]]}", "settings.grpo.use_dynamic_sampling=true"],
         "nobody knows beforehand which step"),
    ],
)  # fmt: skip
def test_what_a_mixture_asks_and_nemo_rl_cannot_do_is_refused_before_anything_is_written(
    tmp_path: Path, words: list[str], said: str
) -> None:
    recipe = load_recipe(NATIVE, [f"output={tmp_path / 'run'}", "settings.grpo.max_num_steps=2", *words])

    def begin() -> None:
        check_recipe(recipe)
        write_tasks(recipe, recipe.specs(), tmp_path)

    with pytest.raises(InputError, match=re.escape(said)):
        begin()
    assert not (tmp_path / "train.jsonl").exists()


def test_lora_becomes_nemo_rls_own(tmp_path: Path) -> None:
    _, config = made(DPO, tmp_path, "lora={r: 4, alpha: 8, target_modules: [q_proj]}")
    lora = config["policy"]["dtensor_cfg"]["lora_cfg"]
    assert lora == {
        "enabled": True, "dim": 4, "alpha": 8, "dropout": 0.0, "match_all_linear": False, "target_modules": ["q_proj"],
    }  # fmt: skip


def test_settings_have_the_last_word_over_what_we_write(tmp_path: Path) -> None:
    _, config = made(SFT, tmp_path, "settings.logger.wandb_enabled=true", "settings.sft.val_period=5")
    assert config["logger"]["wandb_enabled"] is True
    assert config["sft"]["val_period"] == 5


def test_an_unknown_environment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'word_math'"):
        made(NATIVE, tmp_path, "mixture=[{environment: word_mat}]")


def test_a_published_setting_is_inherited_and_the_recipe_says_what_the_data_depends_on(tmp_path: Path) -> None:
    _, config = made(THROUGH_GYM, tmp_path, SMALL)
    assert config["defaults"] == f"/checkout/{PUBLISHED['workplace_assistant']}"
    with pytest.raises(InputError, match=r"settings\.grpo\.batch_multiplier is not set; with settings\.gymrail"):
        made(THROUGH_GYM, tmp_path, SMALL, "settings.grpo.use_dynamic_sampling=true")
    with pytest.raises(InputError, match=r"settings\.gymrail.*'example'"):
        made(THROUGH_GYM, tmp_path, SMALL, "settings.gymrail.example=nemotron_4")
    with pytest.raises(InputError, match=r"settings\.policy\.megatron_cfg\.peft"):
        made(THROUGH_GYM, tmp_path, SMALL, "lora.r=8")
    with pytest.raises(InputError, match="a setting of GRPO"):
        made(SFT, tmp_path, "settings.gymrail.example=dapo_7b")


def test_overlong_shaping_is_nemo_rls_own_and_off_unless_the_recipe_says_it(tmp_path: Path) -> None:
    _, config = made(NATIVE, tmp_path, SMALL)
    assert config["grpo"]["reward_shaping"] == {"enabled": False}
    _, config = made(NATIVE, tmp_path, SMALL, "overlong={buffer: 128, penalty: 0.5}")
    assert config["grpo"]["reward_shaping"] == {
        "enabled": True, "overlong_buffer_length": 128, "overlong_buffer_penalty": 0.5, "max_response_length": 512,
        "stop_properly_penalty_coef": None,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"settings\.grpo\.reward_shaping: set overlong instead"):
        made(NATIVE, tmp_path, SMALL, "settings.grpo.reward_shaping={enabled: true}")


def test_arguments_of_the_chat_template_reach_nemo_gyms_model_server(tmp_path: Path) -> None:
    overrides = ["settings.grpo.max_num_steps=1", "settings.gymrail.chat_template_kwargs={enable_thinking: false}"]
    _, config = made(THROUGH_GYM, tmp_path, *overrides)
    model = config["env"]["nemo_gym"]["policy_model"]["responses_api_models"]["vllm_model"]
    assert model["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_recipes_own_files_are_what_the_data_is_made_of(tmp_path: Path) -> None:
    rows = list(islice(find("mcqa").tasks("example"), 2))
    write_jsonl((task.row for task in rows), tmp_path / "mine.jsonl")
    mixture = f"mixture=[{{environment: mcqa, files: {{train: {tmp_path / 'mine.jsonl'}}}}}]"
    small = ["settings.grpo.max_num_steps=1", "evaluation=null", "settings.grpo.val_period=0"]
    made(NATIVE, tmp_path, mixture, *small)
    written = [json.loads(line)["task"] for line in (tmp_path / "train.jsonl").read_text("utf-8").splitlines()]
    assert len(written) == 16
    assert {json.dumps(row) for row in written} == {json.dumps(task.row) for task in rows}
    with pytest.raises(InputError, match=r"mcqa: there is no file 'nowhere\.jsonl' for the split 'train'"):
        made(NATIVE, tmp_path, "mixture=[{environment: mcqa, files: {train: nowhere.jsonl}}]")
