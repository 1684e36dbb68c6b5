"""A recipe whose environment is two URLs trains on it, and evaluates on the held-out file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from gymrail.collect.run_directory import RunDirectory
from gymrail.recipe import Recipe
from gymrail.registry import find
from gymrail_trl.train import train
from tests.core.clients.served import KEY, served


@pytest.mark.slow
def test_a_recipe_trains_on_an_environment_behind_urls(
    checkpoint: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GYMRAIL_KEY", KEY)
    for split in ("train", "validation"):
        rows = [orjson.dumps(task.row) + b"\n" for task in find("word_math").tasks(split, limit=8)]
        (tmp_path / f"{split}.jsonl").write_bytes(b"".join(rows))
    with served("word_math", count=2) as servers:
        address = ",".join(f"{server.url}/word_math" for server in servers)
        settings = {"max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4}
        recipe = Recipe.model_validate(
            {
                "name": "t",
                "algorithm": "grpo",
                "model": checkpoint("tiny"),
                "mixture": [{"environment": f"{address}#{tmp_path}"}],
                "sampling": {"max_output_tokens": 16, "context_length": 256},
                "evaluation": {"tasks": 4},
                "settings": settings,
                "output": str(tmp_path / "run"),
            }
        )
        summary = train(recipe)
    played = [r for r in RunDirectory.open(tmp_path / "run").rollouts() if "train_step" in r.metrics]
    assert len(played) == 8
    assert all(rollout.is_trainable for rollout in played)
    assert summary["after"]["word_math"]["tasks"] == 4
    assert KEY not in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
