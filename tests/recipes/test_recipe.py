"""Reading recipes: overrides, and errors that name the nearest key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gymrail.errors import InputError
from gymrail.recipe import load_recipe

RECIPE = """
algorithm: grpo
model: tiny
mixture:
  - {environment: word_math}
  - {environment: treasure_hunt, weight: 3}
settings: {learning_rate: 1e-5, max_steps: 4}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_a_recipe_is_named_after_its_file_and_loads_its_environments(file: Path) -> None:
    recipe = load_recipe(file)

    assert (recipe.name, recipe.directory) == ("mine", Path("runs/mine"))
    assert [(spec.name, entry.weight) for spec, entry in zip(recipe.specs(), recipe.mixture, strict=True)] == [
        ("word_math", 1.0),
        ("treasure_hunt", 3.0),
    ]


def test_overrides_reach_into_sections_and_lists(file: Path) -> None:
    recipe = load_recipe(
        file,
        [
            "settings.learning_rate=3e-4",
            "mixture.1.weight=2",
            "evaluation.tasks=8",
            "model=Qwen/Qwen3-0.6B",
            "agent.max_steps=null",
        ],
    )

    assert recipe.settings["learning_rate"] == 3e-4
    assert recipe.mixture[1].weight == 2.0
    assert recipe.evaluation is not None
    assert recipe.evaluation.tasks == 8
    assert recipe.model == "Qwen/Qwen3-0.6B"
    assert recipe.agent.max_steps is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sampling.temprature=1", "unknown key 'sampling.temprature'. Did you mean 'temperature'?"),
        ("algoritm=grpo", "unknown key 'algoritm'. Did you mean 'algorithm'?"),
        ("mixture.0.weigth=1", "unknown key 'mixture.0.weigth'. Did you mean 'weight'?"),
        ("mixture.0.weight=-1", "'mixture.0.weight' is -1"),
        ("algorithm=ppo", "'algorithm' is 'ppo'"),
        ("mixture=[]", "needs a mixture"),
        ("mixture.1.environment=word_math", "names an environment twice"),
        ("mixture.7.weight=1", "'7' is no position in a list of 2"),
        ("nonsense", "write key=value"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence_with_the_fix(file: Path, override: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(file, [override])
    assert words in str(error.value)


def test_a_missing_recipe_names_those_nearby(file: Path) -> None:
    with pytest.raises(InputError, match=r"Did you mean '.*mine\.yaml'"):
        load_recipe(file.with_name("mien.yaml"))


def test_an_unknown_environment_names_the_nearest(file: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'word_math'"):
        load_recipe(file, ["mixture.0.environment=word_maths"]).specs()


def test_tasks_are_weighed_by_a_profile_alone(file: Path) -> None:
    entry = load_recipe(file, ["mixture.0.profile=tasks.jsonl", "mixture.0.weight_by=pass_rate"]).mixture[0]
    assert (entry.profile, entry.weight_by) == ("tasks.jsonl", "pass_rate")
    with pytest.raises(InputError, match="weight_by needs `profile`: `gymrail profile RUN -o FILE` writes one"):
        load_recipe(file, ["mixture.0.weight_by=pass_rate"])
    with pytest.raises(InputError, match=r"'mixture\.0\.weight_by' is 'mean': Input should be 'pass_rate'"):
        load_recipe(file, ["mixture.0.weight_by=mean"])


def test_limits_of_an_episode_are_checked_and_name_the_nearest_key(file: Path) -> None:
    agent = load_recipe(file, ["agent.token_limit=5000", "agent.time_limit_seconds=2.5"]).agent
    assert (agent.token_limit, agent.time_limit_seconds, agent.tool_call_limit) == (5000, 2.5, None)
    with pytest.raises(InputError, match=r"unknown key 'agent\.tool_calls_limit'\. Did you mean 'tool_call_limit'\?"):
        load_recipe(file, ["agent.tool_calls_limit=3"])
    with pytest.raises(InputError, match=r"'agent\.output_token_limit' is 0"):
        load_recipe(file, ["agent.output_token_limit=0"])


def test_overlong_shaping_is_for_grpo_and_needs_room_before_the_limit(file: Path) -> None:
    recipe = load_recipe(file, ["overlong.buffer=100"])
    assert recipe.overlong is not None
    assert (recipe.overlong.buffer, recipe.overlong.penalty) == (100, 1.0)
    with pytest.raises(InputError, match=r"overlong\.buffer is 512; it must be below sampling\.max_output_tokens"):
        load_recipe(file, ["overlong.buffer=512"])
    with pytest.raises(InputError, match="overlong goes with algorithm grpo, not with sft"):
        load_recipe(file, ["algorithm=sft", "data=[runs/x]", "overlong.buffer=100"])


def test_an_entry_takes_its_tasks_from_files_by_split(file: Path, tmp_path: Path) -> None:
    rows = tmp_path / "mine.jsonl"
    task = next(iter(load_recipe(file).specs()[0].tasks("validation", limit=1)))
    rows.write_text(json.dumps(task.row) + "\n", encoding="utf-8")
    spec = load_recipe(file, [f"mixture.0.files={{train: {rows}}}"]).specs()[0]
    assert [found.row for found in spec.tasks("train")] == [task.row]
    # The other splits stay the environment's own.
    assert len(list(spec.tasks("validation", limit=3))) == 3
    with pytest.raises(InputError, match=r"word_math: there is no file '.*gone\.jsonl' for the split 'train'"):
        load_recipe(file, [f"mixture.0.files={{train: {tmp_path / 'gone.jsonl'}}}"]).specs()
    with pytest.raises(InputError, match=r"mixture\.0\.files\.training"):
        load_recipe(file, [f"mixture.0.files={{training: {rows}}}"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sampling.temperature=0", "sampling.temperature is 0; grpo learns from rollouts of a task that differ"),
        ("tiny.heads=3", "must be a multiple of 2 * heads (6)"),
        ("overlong.buffer=9999", "overlong.buffer is 9999; it must be below sampling.max_output_tokens"),
    ],
)
def test_what_is_wrong_with_the_whole_is_said_without_printing_the_whole(file: Path, override: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        load_recipe(file, [override])
    assert words in str(raised.value)
    assert len(str(raised.value)) < 300
