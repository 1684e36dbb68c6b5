"""`gymrail train --processes 2`: the recipe's whole run in two processes of one machine, for real, on gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gymrail.collect.run_directory import RunDirectory
from gymrail.errors import InputError
from gymrail.recipe import Recipe, load_recipe
from gymrail.recipe_mixture import mixture_of
from gymrail_trl import requirements
from gymrail_trl.requirements import check_processes
from gymrail_trl.train import train

QUICKSTART = Path(__file__).parents[2] / "recipes" / "grpo" / "quickstart.yaml"
SHORT = [
    "warm_start.rollouts=64",
    "warm_start.settings.max_steps=2",
    "warm_start.settings.per_device_train_batch_size=4",
    "evaluation.tasks=4",
    "settings.max_steps=4",
    "settings.save_steps=4",
    "settings.per_device_train_batch_size=4",
]


def run(output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gymrail", "train", str(QUICKSTART), f"output={output}", *SHORT, *more]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=variables, check=False)


def recipe(**fields: object) -> Recipe:
    return Recipe.model_validate(
        {"name": "t", "algorithm": "grpo", "model": "tiny", "mixture": [{"environment": "word_math"}], **fields}
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_share_every_stage_and_leave_one_run_that_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "run"
    done = run(output, "--processes", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    # One process speaks, and what the others journalled is in the run's own files.
    assert done.stdout.count("held-out reward after training") == 1
    assert not list(output.rglob("processes"))
    teacher = Counter(
        (r.environment, r.task_index) for r in RunDirectory.open(output / "warm_start/rollouts").rollouts()
    )
    assert len(teacher) == 64
    assert set(teacher.values()) == {1}
    for stage in ("before", "after"):
        scores = json.loads((output / "stages.json").read_text())[f"evaluation_{stage}"]
        assert {name: score["tasks"] for name, score in scores.items()} == {"word_math": 4, "treasure_hunt": 4}
        assert len(list(RunDirectory.open(output / f"evaluation_{stage}").tasks())) == 8
    assert json.loads((output / "metrics.json").read_text())["rollouts"] == 2 * 4 * 4

    with pytest.raises(InputError, match=r"was trained in 2 processes and would go on in 1.*--processes 2"):
        train(load_recipe(QUICKSTART, [f"output={output}", *SHORT, "settings.max_steps=8", "resume=true"]))

    done = run(output, "settings.max_steps=8", "resume=true", "--processes", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    # The mixture's groups in its order, each with all of its rollouts, whichever process played them.
    sound = load_recipe(QUICKSTART, SHORT)
    mixture = mixture_of(sound, sound.specs())
    played = [r for r in RunDirectory.open(output).rollouts() if "train_step" in r.metrics]
    wanted = {
        (group.spec.name, index, repeat)
        for index in range(8)
        for group in [mixture.group(index)]
        for repeat in range(8)
    }
    assert Counter((r.environment, r.task_index, r.repeat) for r in played) == Counter(wanted)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mixing": {"dynamic_sampling": {"refills": 1}}}, "mixing.dynamic_sampling is set, so the mixture is drawn"),
        ({"mixture": [{"environment": "word_math", "floor": 1}]}, "mixture.0.floor is set"),
        ({"settings": {"fsdp": "full_shard"}}, "fsdp is set; gymrail train keeps whole weights on every GPU"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_by_the_key_that_asks_for_it(
    fields: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError) as raised:
        check_processes(recipe(**fields))
    assert words in str(raised.value)


def test_a_mixture_of_weights_alone_is_fine_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    entries = [{"environment": "word_math", "reward_scale": 2.0}, {"environment": "treasure_hunt", "weight": 2}]
    check_processes(recipe(mixture=entries, mixing={"temperature": 2.0}))


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(requirements, "count_gpus", lambda: 2)
    with pytest.raises(InputError, match=r"4 processes are to run here, .* there are 2"):
        check_processes(recipe())
