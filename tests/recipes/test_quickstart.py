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
