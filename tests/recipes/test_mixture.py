"""A recipe whose mixture changes over steps and by what was measured, trained for real: it goes on exactly where it
stopped, and refuses what cannot work before anything loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gymrail.collect.run_directory import RunDirectory
from gymrail.errors import InputError
from gymrail.recipe import Recipe, load_recipe
from gymrail_trl.train import train

RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = [
    "warm_start.rollouts=320",
    "warm_start.settings.max_steps=20",
    "evaluation=null",
    "settings.max_steps=12",
    "settings.save_steps=4",
    "settings.save_total_limit=4",
    "settings.per_device_train_batch_size=16",
    "settings.num_generations=8",
    "mixing.unit=tokens",
    "mixing.curriculum.fresh=0.5",
    "mixing.dynamic_sampling.refills=1",
    "mixing.dynamic_sampling.probe=4",
    "mixture.0.floor=2",
    "mixture.1={environment: treasure_hunt, schedule: [[0, 1], [8, 3]], reward_scale: 2.0, concurrency: 20}",
]


def short(output: Path, *more: str) -> Recipe:
    return load_recipe(RECIPES / "grpo" / "quickstart.yaml", [f"output={output}", *SHORT, *more])


def played(run: Path) -> list[tuple[int, str, int, str, float | None]]:
    """What was played, in order: step, environment, group, task and reward."""
    rollouts = RunDirectory.open(run).rollouts()
    return sorted((r.metrics["train_step"], r.environment, r.task_index, r.task.id, r.reward or 0.0) for r in rollouts)


def losses(run: Path) -> list[float]:
    return [entry["loss"] for entry in json.loads((run / "log.json").read_text()) if "loss" in entry]


def test_a_stopped_run_goes_on_with_the_same_batch_and_the_same_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(short(tmp_path / "whole"))

    class Stop(Exception):
        pass

    import gymrail_trl.train as module

    original = module._Run._record

    def record(self: Any, rollout: Any) -> None:
        if rollout.metrics["train_step"] == 4 and rollout.repeat == 3:
            raise Stop
        original(self, rollout)

    monkeypatch.setattr(module._Run, "_record", record)
    with pytest.raises(Stop):
        train(short(tmp_path / "stopped"))
    monkeypatch.setattr(module._Run, "_record", original)
    train(short(tmp_path / "stopped", "resume=true"))

    whole, stopped = played(tmp_path / "whole"), played(tmp_path / "stopped")
    assert {step for step, *_ in whole} == {0, 4, 8}
    for step in (4, 8):
        # The rollouts between the checkpoint and the stop are played, and journalled, a second time.
        assert set(row for row in stopped if row[0] == step) == set(row for row in whole if row[0] == step)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    final = [load_file(tmp_path / run / "final" / "model.safetensors") for run in ("whole", "stopped")]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[0])

    logged = [e for e in json.loads((tmp_path / "whole" / "log.json").read_text()) if "env/word_math/share" in e]
    assert all(entry["env/word_math/late"] == 0 for entry in logged)
    assert sum(entry["env/word_math/given_up"] for entry in logged) > 0
    state = json.loads((tmp_path / "whole" / "checkpoints" / "checkpoint-12" / "mixture.json").read_text())
    assert state["slots"] == 24
    assert state["drawn"] > 24


def test_a_checkpoint_without_the_mixture_s_state_is_not_gone_on_from(tmp_path: Path) -> None:
    train(short(tmp_path / "run", "settings.max_steps=4", "warm_start=null"))
    (tmp_path / "run" / "checkpoints" / "checkpoint-4" / "mixture.json").unlink()

    with pytest.raises(InputError, match="how far the mixture was"):
        train(short(tmp_path / "run", "resume=true", "settings.max_steps=4", "warm_start=null"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mixing.unit=words", "mixing.unit"),
        ("mixing.temprature=2", "temperature"),
        ("mixing.temperature=0", "mixing.temperature"),
        ("mixing.curriculum.band=[0.9, 0.1]", "lower one first"),
        ("mixing.dynamic_sampling.probe=1", "probe"),
        ("mixing.late.patience=0.5", "patience"),
        ("mixture.1.weight=2", "takes the place of weight"),
        ("mixture.1.schedule=[[5, 1], [5, 2]]", "must rise"),
        ("mixture.0.floor=-1", "floor"),
        ("mixture.0.floor=9", "sum to 9"),
        ("mixture.0.epochs=1", "no epochs"),
        ("mixture.0.deadline_seconds=0", "deadline_seconds"),
        ("mixture.0.reward_scale=0", "reward_scale"),
        ("mixing.dynamic_sampling.probe=8", "probe with fewer"),
        ("mixing.size_exponent=0.5", "size_exponent needs"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_loads(override: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        train(short(tmp_path / "run", override))
    assert not (tmp_path / "run").exists()


def test_epochs_that_do_not_last_say_the_steps_that_fit(tmp_path: Path) -> None:
    epochs = ["mixing={}", "mixture=[{environment: word_math, limit: 16, epochs: 1}]"]
    with pytest.raises(InputError, match=r"16 groups, and settings\.max_steps=12 needs 24; set settings\.max_steps=8"):
        train(short(tmp_path / "run", *epochs))


@pytest.mark.parametrize("override", ["mixing.unit=tokens", "mixture=[{environment: word_math, floor: 1}]"])
def test_settings_of_grpo_s_batches_are_refused_for_other_algorithms(override: str) -> None:
    with pytest.raises(InputError, match="goes with algorithm grpo, not with sft"):
        load_recipe(RECIPES / "sft" / "from_rollouts.yaml", [override])
