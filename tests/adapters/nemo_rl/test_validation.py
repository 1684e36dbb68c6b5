"""`gymrail validate-trainer` with NeMo RL where there is none: what can be checked is, and the rest is skipped with the
command that gets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gymrail.recipe import load_recipe
from gymrail.rollout import Rollout
from gymrail.tokens import TrainingRow, training_row
from gymrail.validation.endpoint import check_endpoint
from gymrail.validation.plan import Plan
from gymrail.validation.report import Line
from gymrail_nemo_rl import validation
from tests.core.validation.small import plan_of
from tests.core.validation.test_endpoint import Policy

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture(autouse=True)
def policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that needs no training, and no NeMo RL on this machine."""

    def check_policy(plan: Plan, load: Any = None, played: list[Rollout] | None = None) -> Iterator[Line]:
        yield from check_endpoint(replace(plan_of(plan.directory), notes=plan.notes), Policy(), played)

    monkeypatch.setattr("gymrail_trl.validation.check_policy", check_policy)
    monkeypatch.delenv("NEMO_RL_SOURCE", raising=False)


def lines_of(path: Path, *overrides: str, recipe: str = "grpo/nemo_rl_quickstart.yaml") -> dict[str, Line]:
    loaded = load_recipe(RECIPES / recipe, list(overrides))
    plan = Plan(loaded, loaded.specs(), "tiny", 4, path)
    return {f"{line.group}/{line.name}": line for line in validation.check_trainer(plan)}


@pytest.mark.parametrize("recipe", ["grpo/nemo_rl_quickstart.yaml", "sft/nemo_rl_from_rollouts.yaml"])
def test_what_needs_no_nemo_rl_passes_and_the_rest_is_skipped_with_its_command(tmp_path: Path, recipe: str) -> None:
    lines = lines_of(tmp_path, recipe=recipe)
    assert {name for name, line in lines.items() if line.status == "PASS"} == {
        "endpoint/chat completions", "endpoint/tool calls", "endpoint/token ids", "endpoint/next turn",
        "tokens/episodes", "tokens/trained tokens", "loop/configuration",
    }  # fmt: skip
    assert "16 rollouts, 48 sampled tokens" in lines["tokens/trained tokens"].detail
    skipped = {name: line.fix for name, line in lines.items() if line.status == "SKIPPED"}
    assert skipped.keys() == {
        "tokens/log-probs", "loop/NeMo RL's own check", "loop/steps, weights, rewards, checkpoint, stop and resume"
    }  # fmt: skip
    assert "git clone --recursive" in skipped["loop/NeMo RL's own check"]
    assert all(skipped.values())


def test_a_key_that_nemo_rl_does_not_have_is_found(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, "settings.grpo.max_num_stepps=3")
    assert lines["loop/configuration"].status == "FAIL"
    assert "max_num_steps" in lines["loop/configuration"].detail
    assert "loop/NeMo RL's own check" not in lines


def test_a_message_log_that_is_not_what_was_sampled_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(rollout: Rollout, **options: Any) -> TrainingRow:
        row = training_row(rollout, **options)
        return replace(row, sequence=replace(row.sequence, mask=[*row.sequence.mask[1:], 0]))

    monkeypatch.setattr(validation, "training_row", shifted)
    line = lines_of(tmp_path)["tokens/trained tokens"]
    assert line.status == "FAIL"
    assert "the message log is not what was sampled" in line.detail


def test_an_answer_that_nemo_rl_would_end_its_batch_for_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rewritten(rollout: Rollout, row: dict[str, Any]) -> dict[str, Any]:
        calls = [dict(item) for item in rollout.items if item.get("generation_token_ids")]
        calls[-1]["prompt_token_ids"] = [99, *calls[-1]["prompt_token_ids"]]
        return {**row, "response": {"output": calls}}

    monkeypatch.setattr(validation, "trained_row", rewritten)
    line = lines_of(tmp_path)["tokens/trained tokens"]
    assert line.status == "FAIL"
    assert "is not contiguous, which ends NeMo RL's batch" in line.detail
