"""`gymrail validate-trainer` with TRL: a whole report of the quickstart, and planted faults, each found by the line
that is about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gymrail.models.transformers import TransformersSampler
from gymrail.recipe import load_recipe
from gymrail.validation.plan import Plan
from gymrail.validation.report import Line
from gymrail.validation.validate import validate_trainer
from gymrail_trl import loop, scaled_down, validation
from gymrail_trl.rollout import RolloutFunction
from gymrail_trl.scaled_down import Scaled, scale_down
from gymrail_trl.settings import build_config
from gymrail_trl.stages import Policy

# A run takes some 15 seconds of one core.
pytestmark = pytest.mark.timeout(900)

RECIPES = Path(__file__).parents[3] / "recipes"


def plan_of(path: Path, recipe: str = "grpo/quickstart.yaml", *overrides: str, model: str = "tiny") -> Plan:
    loaded = load_recipe(RECIPES / recipe, list(overrides))
    return Plan(loaded, loaded.specs(), model, 2, path)


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Scaled:
    """The quickstart made small, with its policy: made once, trained from in every test."""
    validation._quiet()
    plan = plan_of(tmp_path_factory.mktemp("start"), "grpo/quickstart.yaml", "settings.steps_per_generation=1")
    return scale_down(plan, validation.load_with_transformers)


def run_loop(
    start: Scaled, path: Path, until: str, load: Any = validation.load_with_transformers, **settings: Any
) -> dict[str, Line]:
    """The loop's lines up to one; what comes after it is not run."""
    recipe = start.plan.recipe
    changed = recipe.model_copy(update={"settings": {**recipe.settings, **settings}})
    plan = replace(start.plan, recipe=changed, directory=path)
    lines: dict[str, Line] = {}
    for line in loop.check_loop(replace(start, plan=plan), load):
        lines[line.name] = line
        if line.name == until:
            return lines
    raise AssertionError(f"there is no line {until!r}: {sorted(lines)}")


def failed(lines: dict[str, Line]) -> dict[str, str]:
    return {name: line.detail for name, line in lines.items() if line.status == "FAIL"}


def test_the_quickstart_passes_every_line(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "grpo/quickstart.yaml")
    notes: list[str] = []
    lines = list(validate_trainer(recipe, validation.check_trainer, directory=tmp_path, steps=4, notes=notes))

    assert [line for line in lines if line.status != "PASS"] == []
    assert [f"{line.group}/{line.name}" for line in lines] == [
        "environments/word_math", "environments/treasure_hunt",
        "several/one batch", "several/a missing metric",
        "orchestration/parallel", "orchestration/a failed episode", "orchestration/a slow episode",
        "orchestration/stop and go on",
        "endpoint/chat completions", "endpoint/tool calls", "endpoint/token ids", "endpoint/next turn",
        "tokens/episodes", "tokens/chat template", "tokens/trained tokens", "tokens/log-probs",
        "loop/configuration", "loop/steps", "loop/weights", "loop/rewards", "loop/checkpoint", "loop/stop and resume",
    ]  # fmt: skip
    assert "4 optimiser steps, on batches of a few rollouts" in notes
    page = (RECIPES.parent / "docs/validate_trainer.md").read_text(encoding="utf-8")
    own = {"word_math", "treasure_hunt"}
    assert [line.name for line in lines if line.name not in own and f"| {line.name} |" not in page] == []
    assert list(tmp_path.glob("whole/checkpoints/checkpoint-*"))


def test_an_optimiser_that_does_not_move_is_found(start: Scaled, tmp_path: Path) -> None:
    lines = run_loop(start, tmp_path, "stop and resume", learning_rate=0.0)
    assert failed(lines) == {"weights": "no weight changed: the learning rate was 0 in every step"}
    assert lines["weights"].fix.startswith("Set settings.learning_rate")


def test_weights_that_half_precision_cannot_move_are_found(start: Scaled, tmp_path: Path) -> None:
    def load(recipe: Any, path: str) -> Policy:
        policy = validation.load_with_transformers(recipe, path)
        policy.model = policy.model.bfloat16()
        return policy

    lines = run_loop(start, tmp_path, "weights", load, learning_rate=1e-9)
    assert failed(lines)["weights"].startswith("no weight changed in 2 steps at a learning rate up to 1e-09")
    assert "dtype: float32" in lines["weights"].fix


def test_a_sampler_whose_log_probs_are_of_another_policy_is_found(
    start: Scaled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = TransformersSampler.generate

    def stale(self: Any, prompts: Any, sampling: Any) -> Any:
        samples = generate(self, prompts, sampling)
        return [sample._replace(log_probs=[value - 0.01 for value in sample.log_probs]) for sample in samples]

    monkeypatch.setattr(TransformersSampler, "generate", stale)
    found = failed(run_loop(start, tmp_path, "log-probs"))
    assert found.keys() == {"log-probs"}
    assert "max 1.0e-02, mean 1.0e-02, mean exp|d| 1.0101; max 0.001 allowed" in found["log-probs"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda columns: columns["env_mask"].__setitem__(0, [1] * len(columns["env_mask"][0])), "was not sampled"),
        (lambda columns: columns["env_mask"].__setitem__(0, [0, *columns["env_mask"][0][1:]]), "is not trained"),
        (lambda columns: columns["completion_ids"][0].__setitem__(0, 5), "was never sampled so"),
    ],
)  # fmt: skip
def test_a_row_that_is_not_what_was_sampled_is_found(
    start: Scaled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None], words: str
) -> None:
    to_columns = RolloutFunction.to_columns

    def careless(self: Any, rollouts: Any, eos_token_id: int) -> Any:
        # The longest row has tool results between the policy's turns.
        order = sorted(range(len(rollouts)), key=lambda place: -rollouts[place].steps)
        assert rollouts[order[0]].steps > 1
        columns = to_columns(self, rollouts, eos_token_id)
        for name, column in columns.items():
            column[0], column[order[0]] = column[order[0]], column[0]
            columns[name] = [list(entry) if isinstance(entry, list) else entry for entry in column]
        change(columns)
        return columns

    monkeypatch.setattr(RolloutFunction, "to_columns", careless)
    found = failed(run_loop(start, tmp_path, "trained tokens"))
    assert words in found["trained tokens"]


def test_rewards_that_the_trainer_reads_otherwise_are_found(
    start: Scaled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = RolloutFunction.reward
    monkeypatch.setattr(
        RolloutFunction, "reward", lambda self, *rest, **named: [1.0 for _ in reward(self, *rest, **named)]
    )
    lines = run_loop(start, tmp_path, "rewards")
    assert "the trainer reports reward 1.0, and the rollouts earned" in failed(lines)["rewards"]


def test_a_run_that_begins_anew_instead_of_going_on_is_found(
    start: Scaled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gymrail_trl.grpo.last_checkpoint", lambda directory: None)
    found = failed(run_loop(start, tmp_path, "stop and resume"))
    assert found["stop and resume"].startswith("it does not go on after step 1: its first step is [1]")


def test_a_run_that_goes_on_with_other_weights_is_found(
    start: Scaled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = loop._Runs.run

    def stale(self: Any, name: str, after: Any = None) -> Any:
        if after is not None:
            shutil.copy(Path(start.path) / "model.safetensors", after.checkpoints / "checkpoint-1")
        return run(self, name, after)

    monkeypatch.setattr(loop._Runs, "run", stale)
    found = failed(run_loop(start, tmp_path, "stop and resume"))
    assert found["stop and resume"].startswith("it goes on with other weights than the checkpoint's: ")


def test_a_checkpoint_without_what_was_trained_is_found(
    start: Scaled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = loop._loaded

    def stale(folder: Path, *rest: Any) -> Any:
        shutil.copy(Path(start.path) / "model.safetensors", folder / "model.safetensors")
        return load(folder, *rest)

    monkeypatch.setattr(loop, "_loaded", stale)
    assert " differs by up to " in failed(run_loop(start, tmp_path, "checkpoint"))["checkpoint"]


def test_a_template_that_drifts_is_found(start: Scaled, tmp_path: Path) -> None:
    """One that writes the next question otherwise when the answer before it was long."""
    folder = tmp_path / "drifting"
    shutil.copytree(start.path, folder)
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8")
    planted = (
        "{%- set said = namespace(much='') %}{%- for m in messages %}"
        "{%- if m.role == 'assistant' and (m.content or '') | length > 5 %}{%- set said.much = ' again' %}{%- endif %}"
        "{%- endfor %}"
    )
    last = "{{- '<|im_start|>assistant\\n' }}\n{%- endif %}"
    assert last in template
    changed = last.replace("assistant\\n'", "assistant' ~ said.much ~ '\\n'")
    file.write_text(planted + template.replace(last, changed), encoding="utf-8")

    lines = {line.name: line for line in validation.check_policy(plan_of(tmp_path, model=str(folder)))}

    assert lines["chat template"].status == "FAIL"
    assert "otherwise depending on what an earlier turn said" in lines["chat template"].detail
    assert lines["chat template"].fix == f"gymrail tokens check {folder} --train rollouts"


def test_settings_that_the_trainer_refuses_are_found_before_anything_is_made(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "grpo/quickstart.yaml", "settings.learning_rte=1")
    first, *others = validation.check_trainer(plan)
    assert (first.name, first.status) == ("configuration", "FAIL")
    assert "Did you mean 'learning_rate'?" in first.detail
    assert {line.status for line in others} == {"SKIPPED"}
    assert list(tmp_path.iterdir()) == []


def test_an_sft_recipe_is_checked_on_a_teacher_s_rollouts(start: Scaled, tmp_path: Path) -> None:
    settings = {"max_steps": 4, "save_steps": 2, "save_strategy": "steps", "per_device_train_batch_size": 4}
    recipe = start.plan.recipe.model_copy(update={"algorithm": "sft", "settings": settings})
    plan = replace(start.plan, recipe=recipe, directory=tmp_path)
    scaled = replace(start, plan=plan, saved_at=2)
    lines = {line.name: line for line in loop.check_loop(scaled, validation.load_with_transformers)}
    assert {name for name, line in lines.items() if line.status == "PASS"} == {
        "steps", "weights", "checkpoint", "stop and resume",
    }  # fmt: skip
    assert failed(lines) == {}
    assert json.dumps([line._asdict() for line in lines.values()])


def test_the_tiny_policy_s_warm_up_says_trl_s_own_defaults_which_unsloth_s_classes_change(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "grpo/quickstart.yaml")
    said = {"gradient_accumulation_steps", "optim", "padding_free", "weight_decay"}
    assert said <= scaled_down._WARM_UP.keys()
    bare = build_config(recipe, "sft", {}, tmp_path)
    assert {name: getattr(bare, name) for name in said} == {name: scaled_down._WARM_UP[name] for name in said}
