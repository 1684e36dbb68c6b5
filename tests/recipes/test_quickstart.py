"""The quickstart recipe itself, cut short: every stage runs for real, and a stopped run goes on where it stopped."""

from __future__ import annotations

import json
from collections import Counter
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
    "evaluation.tasks=16",
    "settings.max_steps=8",
    "settings.save_steps=4",
    "settings.save_total_limit=3",
    "settings.per_device_train_batch_size=16",
    "settings.num_generations=8",
    "mixture.1.weight=1",
]


def short(output: Path, *more: str) -> Recipe:
    return load_recipe(RECIPES / "grpo" / "quickstart.yaml", [f"output={output}", *SHORT, *more])


def played(run: Path) -> list[tuple[int, str, int, str]]:
    """What was trained on, in order: step, environment, group and task."""
    rollouts = RunDirectory.open(run).rollouts()
    return sorted(
        (r.metrics["train_step"], r.environment, r.task_index, r.task.id) for r in rollouts if "train_step" in r.metrics
    )


def test_every_stage_runs_and_leaves_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"

    summary = train(short(run))

    assert summary["rollouts"] == 2 * 64
    assert set(summary["before"]) == set(summary["after"]) == {"word_math", "treasure_hunt"}
    shown = capsys.readouterr().out
    assert "word_math" in shown
    assert "before" in shown
    assert "after" in shown
    assert (run / "reward.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((run / "metrics.json").read_text())["after"] == summary["after"]
    assert Counter(environment for _, environment, _, _ in played(run)) == {"word_math": 64, "treasure_hunt": 64}
    for name in ("warm_start/rollouts", "evaluation_before", "evaluation_after"):
        assert list(RunDirectory.open(run / name).rollouts())
    assert (run / "final" / "model.safetensors").is_file()


def test_a_stopped_run_continues_with_the_same_groups_and_the_same_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(short(tmp_path / "whole"))

    class Stop(Exception):
        pass

    import gymrail_trl.train as module

    original = module._Run._record
    count = 0

    def record(self: Any, rollout: Any) -> None:
        nonlocal count
        count += 1
        if count > 64 + 10:
            raise Stop
        original(self, rollout)

    monkeypatch.setattr(module._Run, "_record", record)
    with pytest.raises(Stop):
        train(short(tmp_path / "stopped"))
    monkeypatch.setattr(module._Run, "_record", original)
    train(short(tmp_path / "stopped", "resume=true"))

    whole, stopped = played(tmp_path / "whole"), played(tmp_path / "stopped")
    assert set(stopped) == set(whole)
    assert [row for row in stopped if row[0] < 4] == [row for row in whole if row[0] < 4]
    final = [load_file(tmp_path / run / "final" / "model.safetensors") for run in ("whole", "stopped")]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[0])


def test_a_run_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rollouts.jsonl").write_text("")

    with pytest.raises(InputError, match="already holds a run"):
        train(short(tmp_path / "run"))


def test_a_changed_mixture_does_not_continue_an_old_checkpoint(tmp_path: Path) -> None:
    train(short(tmp_path / "run", "evaluation=null"))

    with pytest.raises(InputError, match="mixture"):
        train(short(tmp_path / "run", "evaluation=null", "resume=true", "mixture.0.weight=3"))


def test_a_finished_run_that_trains_on_is_measured_anew(tmp_path: Path) -> None:
    """What stands under `after` is of the policy that the run ends with, and the count is of the whole run."""
    run = tmp_path / "run"
    first = train(short(run, "settings.max_steps=4"))
    earlier = sorted(rollout.id for rollout in RunDirectory.open(run / "evaluation_after").rollouts())

    again = train(short(run, "resume=true", "settings.max_steps=4"))
    kept = sorted(rollout.id for rollout in RunDirectory.open(run / "evaluation_after").rollouts())
    further = train(short(run, "resume=true", "settings.max_steps=8"))

    assert (again["after"], kept) == (first["after"], earlier)
    assert [summary["rollouts"] for summary in (first, again, further)] == [64, 64, 128]
    anew = sorted(rollout.id for rollout in RunDirectory.open(run / "evaluation_after").rollouts())
    assert len(anew) == len(earlier)
    assert not set(anew) & set(earlier)
    assert sorted(rollout.id for rollout in RunDirectory.open(run / "evaluation_after_1").rollouts()) == earlier
    assert json.loads((run / "stages.json").read_text())["trained"] == 8


def test_rollouts_of_the_trainer_s_own_evaluation_are_no_training_data(tmp_path: Path) -> None:
    run = tmp_path / "run"
    evaluating = ["settings.eval_strategy=steps", "settings.eval_steps=2", "settings.per_device_eval_batch_size=16"]

    train(short(run, *evaluating, "evaluation.tasks=4", "settings.max_steps=4", "warm_start=null"))

    held_out = list(RunDirectory.open(run / "evaluation_during").rollouts())
    assert Counter(rollout.metrics["train_step"] for rollout in held_out) == {2: 32, 4: 32}
    tasks = {task.id for spec in short(run).specs() for task in spec.tasks("validation", limit=4, seed=0)}
    assert {rollout.task.id for rollout in held_out} <= tasks
    assert not {rollout.task.id for rollout in RunDirectory.open(run).rollouts()} & tasks
    log = json.loads((run / "log.json").read_text())
    assert sum("eval_loss" in entry for entry in log) == 2


def test_stages_of_one_run_may_have_precisions_of_their_own(tmp_path: Path) -> None:
    """The warm start in float32, GRPO under bfloat16's autocast: Accelerate would keep the first."""
    run = tmp_path / "run"
    import gymrail_trl.grpo as module

    seen = []
    original = module.RolloutFunction.__call__

    def call(self: Any, prompts: Any, trainer: Any) -> Any:
        seen.append(trainer.accelerator.mixed_precision)
        return original(self, prompts, trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.RolloutFunction, "__call__", call)
        train(short(run, "settings.bf16=true", "settings.max_steps=4", "evaluation=null"))
        train(short(tmp_path / "other", "warm_start.settings.bf16=true", "settings.max_steps=4", "evaluation=null"))

    assert seen == ["bf16", "no"]


def test_batches_in_which_no_rollout_has_a_reward_train_nothing_and_end_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As while a judge is down. Here nothing fits into the context."""
    run = tmp_path / "run"

    train(short(run, "sampling.context_length=4", "warm_start=null", "evaluation=null"))

    assert "GRPO 8/8" in (shown := capsys.readouterr().err)
    assert "no rollout has a reward" in shown
    before, after = (load_file(run / name / "model.safetensors") for name in ("policy", "final"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {rollout.outcome.status for rollout in RunDirectory.open(run).rollouts() if rollout.outcome} == {"truncated"}


def test_adapters_that_fit_nowhere_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="GRPOTrainer refuses the recipe: Target modules"):
        train(short(tmp_path / "run", "warm_start=null", "evaluation=null", "lora.target_modules=[nowhere]"))
