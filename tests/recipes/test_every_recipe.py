"""Every recipe of the repository, down to its trainer's own configuration objects; nothing is downloaded or trained."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from gymrail.errors import InputError
from gymrail.recipe import Recipe, load_recipe
from gymrail_nemo_rl.configuration import configuration
from gymrail_nemo_rl.keys import EXAMPLES, PUBLISHED, check_settings
from gymrail_nemo_rl.settings import adapter_settings, check_recipe, trainer_settings
from gymrail_nemo_rl.tasks import write_tasks
from gymrail_trl.grpo import check_config, check_mixture
from gymrail_trl.keys import settings_of
from gymrail_trl.settings import build_config
from gymrail_trl.train import _lora
from gymrail_unsloth.keys import check_keys
from gymrail_unsloth.loading import adapter_arguments, loading_arguments
from gymrail_unsloth.train import with_trl_defaults
from tests.recipes.examples import FOLDER, RECIPES, of_trainer, with_examples

TRL, NEMO_RL = of_trainer("trl", "unsloth"), of_trainer("nemo_rl")
SMALL = ("settings.grpo.max_num_steps=1", "settings.grpo.num_prompts_per_step=4")
"""The data of a run is written before it begins; a step's worth does here."""


def shown(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def head(path: Path) -> str:
    """The comment that a recipe begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])


def in_table() -> dict[str, list[str]]:
    """The rows of the README's tables: a recipe's path -> its other cells."""
    rows = {}
    for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| \[`(.+?)`\]\((.+?)\) \|(.*)\|$", line):
            assert match[1] == match[2]
            rows[match[1]] = [cell.strip() for cell in match[3].split("|")]
    return rows


def test_there_is_a_recipe_of_every_trainer_and_algorithm_for_one_environment_and_for_four() -> None:
    found = Counter()
    for path in RECIPES:
        recipe = load_recipe(path)
        found[recipe.trainer, recipe.algorithm, len(recipe.mixture)] += 1
    missing = [
        (trainer, algorithm, environments)
        for trainer in ("trl", "unsloth", "nemo_rl")
        for algorithm in ("grpo", "sft", "dpo")
        for environments in (1, 4)
        if not found[trainer, algorithm, environments]
    ]
    assert not missing


def test_no_two_recipes_write_to_one_run_directory() -> None:
    names = Counter(load_recipe(path).name for path in RECIPES)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", RECIPES, ids=shown)
def test_a_recipe_begins_with_hardware_time_what_to_expect_and_its_command(path: Path) -> None:
    recipe, text = load_recipe(path), head(path)
    assert recipe.algorithm == path.parent.name
    assert "Hardware:" in text
    assert re.search(r"Time( and result)?:", text)
    assert re.search(r"Expect\b|not yet measured", text)
    assert f"gymrail train recipes/{path.relative_to(FOLDER)}" in text.replace("\\\n#     ", "")


@pytest.mark.parametrize("path", RECIPES, ids=shown)
def test_the_head_of_a_recipe_says_where_its_runs_come_from(path: Path) -> None:
    recipe, text = load_recipe(path), head(path)
    trained = {load_recipe(other).name for other in RECIPES if f"recipes/{other.relative_to(FOLDER)}" in text}
    trained |= {"quickstart"} if "make quickstart" in text else set()
    for source in [*recipe.data, *([recipe.model] if recipe.model.startswith("runs/") else [])]:
        run = Path(source).parts[1]
        assert f"--run runs/{run}" in text or run in trained, f"nothing makes {source}"


def test_the_readme_lists_every_recipe_with_hardware_time_and_result() -> None:
    table = in_table()
    assert sorted(table) == [str(path.relative_to(FOLDER)) for path in RECIPES]
    assert all(len(cells) == 5 and all(cells) for cells in table.values())
    for name, (_, _, _, time, result) in table.items():
        text = head(FOLDER / name)
        measured = "not yet measured" not in result
        assert measured or "not yet measured" in text
        assert re.search(r"\d", time) if measured else time, name


@pytest.mark.parametrize("path", TRL, ids=shown)
def test_a_recipe_makes_trls_own_configuration(path: Path, tmp_path: Path) -> None:
    recipe, specs = loaded(path, tmp_path)
    for place, algorithm, settings in settings_of(recipe):
        config = build_config(recipe, algorithm, dict(settings), tmp_path / place)
        given = {key: value for key, value in settings.items() if isinstance(value, int | str | list)}
        assert {key: plain(getattr(config, key)) for key in given} == given
        if algorithm == "grpo":
            check_config(config)
            check_mixture(recipe, specs, config)
            assert config.temperature == recipe.sampling.temperature
            assert config.max_completion_length == recipe.sampling.context_length
    adapters = _lora(recipe)
    assert (adapters is None) == (recipe.lora is None)


@pytest.mark.parametrize("path", of_trainer("unsloth"), ids=shown)
def test_a_recipe_for_unsloth_has_no_key_that_it_lacks(path: Path, tmp_path: Path) -> None:
    recipe, _ = loaded(path, tmp_path)
    check_keys(recipe)
    spelt = with_trl_defaults(recipe)
    build_config(spelt, recipe.algorithm, spelt.settings, tmp_path)
    assert loading_arguments(recipe, "checkpoint")["max_seq_length"] == recipe.sampling.context_length
    assert recipe.lora is not None
    assert adapter_arguments(recipe)["r"] == recipe.lora.r


@pytest.mark.parametrize("path", NEMO_RL, ids=shown)
def test_a_recipe_becomes_nemo_rls_configuration(path: Path, tmp_path: Path) -> None:
    """Down to NeMo RL's own classes with a checkout: tests/interop/test_nemo_rl_recipes.py."""
    recipe, specs = loaded(path, tmp_path, *(SMALL if path.parent.name == "grpo" else ()))
    data = write_tasks(recipe, specs, tmp_path) if recipe.algorithm == "grpo" else {"train": tmp_path / "train.jsonl"}
    config = configuration(recipe, specs, Path("/checkout"), data)

    example = adapter_settings(recipe).example
    assert config["defaults"] == f"/checkout/{PUBLISHED[example] if example else EXAMPLES[recipe.algorithm]}"
    # What the conversion writes is NeMo RL's as well; what only a checkout's example can say is checked there.
    written = {key: value for key, value in config.items() if key not in ("defaults", "data", "env")}
    check_settings(without_marks(written), recipe.algorithm, "configuration")
    assert yaml.safe_load(yaml.safe_dump(config)) == config
    for key, value in trainer_settings(recipe)[recipe.algorithm].items():
        assert config[recipe.algorithm][key] == value


@pytest.mark.parametrize(
    ("path", "override"),
    [
        ("grpo/workplace_assistant.yaml", "settings.epsilon_hihg=0.28"),
        ("sft/one_environment.yaml", "settings.max_stpes=1"),
        ("dpo/unsloth_one_environment.yaml", "settings.betta=0.1"),
        ("grpo/nemo_rl_nemotron_3_nano.yaml", "settings.policy.generation.vllm_cfg.reasoning_parser_pluggin=x"),
        ("grpo/nemo_rl_math_dapo.yaml", "settings.loss_fn.ratio_clip_maxx=0.28"),
        ("dpo/nemo_rl_four_environments.yaml", "settings.cluster.num_node=2"),
    ],
)
def test_a_key_that_the_trainer_lacks_is_refused(path: str, override: str, tmp_path: Path) -> None:
    recipe, _ = loaded(FOLDER / path, tmp_path, override)
    with pytest.raises(InputError, match=r"no such key\. Did you mean"):
        check_recipe(recipe) if recipe.trainer == "nemo_rl" else build_config(
            recipe, recipe.algorithm, recipe.settings, tmp_path
        )


@pytest.mark.parametrize("path", sorted((FOLDER / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_files_and_their_processes_make_up_the_batch(path: Path, tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.to_dict()["distributed_type"] == "MULTI_GPU"
    (recipe,) = [load_recipe(other) for other in RECIPES if f"recipes/accelerate/{path.name}" in head(other)]
    made = build_config(recipe, "grpo", recipe.settings, tmp_path)
    rollouts = made.per_device_train_batch_size * made.gradient_accumulation_steps * config.num_processes
    assert rollouts == 1024
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text(path.read_text(encoding="utf-8") + "num_machine: 2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="num_machine"):
        load_config_from_file(str(unknown))


def loaded(path: Path, folder: Path, *overrides: str) -> tuple[Recipe, Any]:
    recipe = load_recipe(path, [f"output={folder / 'run'}", *with_examples(path, folder / "rows"), *overrides])
    return recipe, recipe.specs()


def plain(value: Any) -> Any:
    """The value of a setting, where TRL made an enumeration's member of it."""
    return getattr(value, "value", value)


def without_marks(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: without_marks(below) for key, below in value.items() if key != "_override_"}
