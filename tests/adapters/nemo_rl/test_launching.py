"""`gymrail train` with NeMo RL stops before anything loads where something is missing, and reads what a run left."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gymrail.collect.run_directory import RunDirectory
from gymrail.collect.runner import Job, collect
from gymrail.errors import GymrailError, InputError
from gymrail.models.scripted import Oracle
from gymrail.recipe import Recipe, load_recipe
from gymrail_nemo_rl import place
from gymrail_nemo_rl.place import Place, check_gpu
from gymrail_nemo_rl.record import Record
from gymrail_nemo_rl.results import read_results
from gymrail_nemo_rl.tasks import SPLIT
from gymrail_nemo_rl.train import make_run, train

QUICKSTART = Path(__file__).parents[3] / "recipes" / "grpo" / "nemo_rl_quickstart.yaml"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout, with our own interpreter, which cannot import NeMo RL."""
    source = tmp_path / "RL"
    (source / "nemo_rl").mkdir(parents=True)
    (source / "nemo_rl" / "__init__.py").touch()
    monkeypatch.setenv("NEMO_RL_SOURCE", str(source))
    monkeypatch.setenv("NEMO_RL_PYTHON", sys.executable)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return source


def recipe_in(folder: Path, *overrides: str) -> Recipe:
    return load_recipe(QUICKSTART, [f"output={folder / 'run'}", "settings.grpo.max_num_steps=1", *overrides])


def test_without_a_checkout_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEMO_RL_SOURCE", raising=False)
    with pytest.raises(InputError, match=r"git clone --recursive https://github.com/NVIDIA-NeMo/RL .* NEMO_RL_SOURCE"):
        train(recipe_in(tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEMO_RL_SOURCE", str(tmp_path))
    with pytest.raises(InputError, match="no NeMo RL checkout"):
        Place.find()


def test_a_checkout_without_its_interpreter_is_refused(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEMO_RL_PYTHON")
    with pytest.raises(InputError, match="run `uv sync`"):
        Place.find()


def test_an_interpreter_without_gymrail_is_refused_with_the_command(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n', encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("NEMO_RL_PYTHON", str(broken))
    with pytest.raises(InputError, match=r"No module named .* uv pip install --python .* gymrail"):
        Place.find().check_imports()


def test_another_commit_than_the_tested_one_is_noted(checkout: Path) -> None:
    assert Place.find().other_commit() is None
    commands = [
        ["init", "-q"],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty", "-m", "x"],
    ]
    for command in commands:
        subprocess.run(["git", "-C", str(checkout), *command], check=True)
    commit = Place.find().other_commit()
    assert commit is not None
    assert len(commit) == 40


def test_without_a_gpu_nothing_starts(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.os.path, "exists", lambda path: False)
    with pytest.raises(InputError, match="there is none here: set RAY_ADDRESS"):
        check_gpu()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_gpu()


def test_what_ends_nemo_rl_is_told_and_its_words_are_kept(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GymrailError, match=r"ended with status 1: .*nemo_rl.* See '.*nemo_rl\.log'"):
        train(recipe_in(tmp_path, "settings.gymrail.check_only=true"))
    log = (tmp_path / "run" / "nemo_rl.log").read_text(encoding="utf-8")
    assert "ModuleNotFoundError" in log
    assert capsys.readouterr().err == log
    assert (tmp_path / "run" / "nemo_rl.yaml").is_file()


def test_a_run_directory_that_holds_a_run_is_not_written_over(checkout: Path, tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", {}).close()
    with pytest.raises(InputError, match="already holds a run"):
        train(recipe_in(tmp_path, "settings.gymrail.check_only=true"))


def test_results_are_counted_by_environment_and_the_last_checkpoint_is_found(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    specs = recipe.specs()
    make_run(recipe, specs)
    jobs = [Job(spec, task, index) for spec in specs for index, task in enumerate(spec.tasks("train", limit=20))]
    for noise in (1.0, 0.0):  # the same tasks twice, as after a restart
        record = Record(recipe.directory, specs)
        asyncio.run(collect(jobs, Oracle(noise), record=record))
        record.close()
    held_out = [
        Job(spec, task.model_copy(update={SPLIT: "validation"}), index)
        for spec in specs
        for index, task in enumerate(spec.tasks("validation", limit=5))
    ]
    for noise in (1.0, 0.0):
        record = Record(recipe.directory, specs)
        asyncio.run(collect(held_out, Oracle(noise), record=record))
        record.close()
    for step in (2, 10):
        (recipe.directory / "checkpoints" / f"step_{step}").mkdir(parents=True)

    summary = read_results(recipe, specs)
    assert summary == json.loads((recipe.directory / "metrics.json").read_text(encoding="utf-8"))
    assert summary["rollouts"] == 80
    for name in ("word_math", "treasure_hunt"):
        found = summary["environments"][name]
        assert found["scored"] + found["truncated"] + found["failed"] == 40
        assert found["reward_first"] < found["reward_last"] == 1.0
        assert summary["held_out"][name] == {"first": 0.0, "last": 1.0}
    assert summary["policy"] == str(recipe.directory / "checkpoints" / "step_10" / "policy")
    keys = {(row["_ng_task_index"], row["_ng_rollout_index"]) for row in RunDirectory.open(recipe.directory).rows()}
    assert keys == {(index, repeat) for index in range(20) for repeat in range(2)}


def test_a_checkout_that_is_too_old_is_refused_with_the_commit_to_use(checkout: Path) -> None:
    info = checkout / "nemo_rl" / "package_info.py"
    info.write_text("MAJOR = 0\nMINOR = 5\nPATCH = 1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"is version 0\.5; the adapter needs 0\.6 or newer: .* git checkout \w{12}"):
        Place.find()
    info.write_text("MAJOR = 1\nMINOR = 0\nPATCH = 0\n", encoding="utf-8")
    assert Place.find().source == checkout
