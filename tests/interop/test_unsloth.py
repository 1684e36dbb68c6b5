"""Unsloth's real trainers on the CPU, in an environment of their own: GRPO, SFT and DPO train, on the very tokens that
TRL trains on."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gymrail.collect.run_directory import RunDirectory
from tests.interop.node import ROOT
from tests.interop.unsloth_home import install, variables
from tests.recipes.examples import of_trainer

RECIPES = of_trainer("trl", "unsloth")
TECHNICAL = {
    "dataset_num_proc", "eval_accumulation_steps", "generation_kwargs", "logging_nan_inf_filter",
    "router_aux_loss_coef", "top_k", "torch_empty_cache_steps", "use_vllm", "vllm_importance_sampling_correction",
}  # fmt: skip
"""Where a recipe's configuration may differ between TRL and Unsloth: how memory is saved, how vLLM is used, the
spelling of no top_k (0 or -1), a loss for routers that Unsloth's forward does not compute."""
_SECONDS = 1500

pytestmark = pytest.mark.timeout(3600)


def unsloth(program: str, *words: str, **more: str) -> str:
    done = subprocess.run(
        [str(install() / program), *words], cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False,
        env=variables(**more),
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout + done.stderr


def train(output: Path, recipe: str, *overrides: str) -> str:
    return unsloth("gymrail", "train", recipe, "trainer=unsloth", f"output={output}", *overrides, UNSLOTH_ALLOW_CPU="1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart, warm start and all, with Unsloth; shorter than the recipe."""
    output = tmp_path_factory.mktemp("unsloth") / "run"
    train(
        output, "recipes/grpo/quickstart.yaml", "warm_start.rollouts=2400", "warm_start.settings.max_steps=200",
        "evaluation.tasks=96", "settings.max_steps=60", "settings.save_steps=20",
    )  # fmt: skip
    return output


def test_unsloth_s_own_trainer_learns_the_quickstart_mixture_on_the_cpu(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    log = [entry for entry in json.loads((run / "log.json").read_text()) if "grad_norm" in entry]
    written = (run / "unsloth_compiled_cache" / "UnslothGRPOTrainer.py").read_text(encoding="utf-8")

    assert "class UnslothGRPOTrainer" in written
    assert len(log) == 60
    assert all(math.isfinite(entry["loss"]) and 0 < entry["grad_norm"] < 100 for entry in log)
    assert {rollout.environment for rollout in RunDirectory.open(run).rollouts()} == {"word_math", "treasure_hunt"}
    gain = {name: metrics["after"][name]["mean"] - metrics["before"][name]["mean"] for name in metrics["before"]}
    assert sum(gain.values()) / len(gain) > 0.05, metrics


def test_masks_token_ids_and_rewards_equal_those_of_trl_for_the_same_scripted_episodes(
    run: Path, tmp_path: Path
) -> None:
    program, policy = str(ROOT / "tests/interop/trainer_rows.py"), str(run / "warm_start" / "policy")
    script = str(tmp_path / "script.json")
    command = [sys.executable, "-P", "-W", "ignore", program, "trl"]
    for mode, out in (("record", "recorded"), ("replay", "trl")):
        words = [*command, mode, policy, script, str(tmp_path / f"{out}.json")]
        subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=_SECONDS, env=variables())
    out = str(tmp_path / "unsloth.json")
    unsloth("python", "-P", program, "unsloth", "replay", policy, script, out, UNSLOTH_ALLOW_CPU="1")
    found: dict[str, Any] = {
        name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("recorded", "trl", "unsloth")
    }

    assert (found["trl"]["trainer"], found["unsloth"]["trainer"]) == ("GRPOTrainer", "UnslothGRPOTrainer")
    ours, theirs = ([row for batch in found[name]["rows"] for row in batch] for name in ("trl", "unsloth"))
    assert len(ours) == len(theirs) == 48
    assert {row["status"] for row in ours} == {"scored", "truncated", "failed"}
    assert {row["environment"] for row in ours} == {"word_math", "treasure_hunt"}
    assert any(0 in row["mask"] and 1 in row["mask"] for row in ours), "no row has an environment's tokens between"
    exact = ("environment", "status", "reward", "prompt_ids", "completion_ids", "mask", "sampled_log_probs")
    for number, (row, other) in enumerate(zip(ours, theirs, strict=True)):
        assert {key: row[key] for key in exact} == {key: other[key] for key in exact}, f"row {number}"
        assert row["advantage"] == pytest.approx(other["advantage"], abs=1e-6), f"row {number}"
        trained = [value for value, keep in zip(other["trained_log_probs"], other["mask"], strict=True) if keep]
        sampled = [v for v, keep in zip(other["sampled_log_probs"] or [], other["mask"], strict=False) if keep]
        assert trained == pytest.approx(sampled, abs=1e-4), f"row {number}"
    for batch, other in zip(found["trl"]["log"], found["unsloth"]["log"], strict=True):
        assert batch["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3, abs=1e-7)
    assert found["unsloth"]["log"][-1]["grad_norm"] == 0, "a batch that failed as a whole is trained on"


@pytest.mark.parametrize("algorithm", ["sft", "dpo"])
def test_sft_and_dpo_train_adapters_with_unsloth_s_trainers(run: Path, tmp_path: Path, algorithm: str) -> None:
    words = [
        f"data=['{run}']", f"model={run / 'warm_start' / 'policy'}", "lora.r=4", "evaluation.tasks=16", "threads=1",
        "settings.max_steps=4", "settings.per_device_train_batch_size=8",
    ]  # fmt: skip
    output = tmp_path / "first"

    train(output, f"recipes/{algorithm}/from_rollouts.yaml", *words)

    name = f"Unsloth{algorithm.upper()}Trainer.py"
    assert (output / "unsloth_compiled_cache" / name).is_file()
    assert json.loads((output / "final" / "adapter_config.json").read_text())["r"] == 4
    if algorithm == "sft":  # a later run goes on with the adapters that it finds
        words[1] = f"model={output / 'final'}"
        train(tmp_path / "second", "recipes/sft/from_rollouts.yaml", *words)
        before, after = (folder / "final" / "adapter_model.safetensors" for folder in (output, tmp_path / "second"))
        assert before.stat().st_size == after.stat().st_size
        assert before.read_bytes() != after.read_bytes()


def test_a_recipe_means_the_same_under_trl_and_unsloth(tmp_path: Path) -> None:
    program = str(ROOT / "tests/interop/trainer_settings.py")
    recipes = [str(path) for path in RECIPES if not path.is_relative_to(ROOT / "recipes" / "iterated")]
    words = [sys.executable, "-P", "-W", "ignore", program, "trl", str(tmp_path / "trl.json"), *recipes]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=_SECONDS, env=variables())
    out = str(tmp_path / "unsloth.json")
    unsloth("python", "-P", program, "unsloth", out, *recipes, UNSLOTH_ALLOW_CPU="1")
    by_trl, by_unsloth = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("trl", "unsloth"))

    assert len(by_unsloth) >= 7
    for path in recipes:
        shared = by_trl[path].keys() & by_unsloth[path].keys() - TECHNICAL
        assert len(shared) > 100
        assert {key: by_unsloth[path][key] for key in shared} == {key: by_trl[path][key] for key in shared}, path


def test_without_a_gpu_training_stops_before_anything_loads_and_says_what_to_do() -> None:
    words = [str(install() / "gymrail"), "train", "recipes/grpo/unsloth_quickstart.yaml"]

    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=variables()
    )  # fmt: skip

    assert done.returncode == 2
    assert "trainer=trl" in done.stderr
    assert "UNSLOTH_ALLOW_CPU=1" in done.stderr
    assert "Unsloth:" not in done.stdout + done.stderr, "its banner means that it was imported"


def test_the_checklist_of_the_integration_passes_with_unsloth_s_own_trainer(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = ("validate-trainer", "recipes/grpo/unsloth_quickstart.yaml", "--json", str(report))

    unsloth("gymrail", *words, UNSLOTH_ALLOW_CPU="1")

    lines = json.loads(report.read_text())["lines"]
    assert not [line for line in lines if line["status"] == "FAIL"]
    passed = {line["name"] for line in lines if line["status"] == "PASS" and line["group"] in ("tokens", "loop")}
    assert passed >= {
        "trained tokens", "log-probs", "configuration", "steps", "weights", "rewards", "checkpoint", "stop and resume",
    }  # fmt: skip
