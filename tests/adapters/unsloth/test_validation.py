"""`gymrail validate-trainer` with Unsloth where it cannot run: its lines are skipped with why, a wrong recipe fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gymrail.errors import InputError
from gymrail.recipe import load_recipe
from gymrail.validation.plan import Plan
from gymrail.validation.report import Line, Points
from gymrail_unsloth import validation

RECIPES = Path(__file__).parents[3] / "recipes"
MISSING = "The Unsloth adapter needs the package unsloth, which is not installed: pip install 'gymrail[unsloth]'."


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Unsloth, and a policy that passes."""

    def refuse() -> None:
        raise InputError(MISSING)

    def check_policy(plan: Plan, *rest: Any) -> Iterator[Line]:
        yield Points("endpoint").passed("chat completions", "well")

    monkeypatch.setattr(validation, "check_packages", refuse)
    monkeypatch.setattr("gymrail_trl.validation.check_policy", check_policy)


def lines_of(path: Path, recipe: str, *overrides: str) -> tuple[dict[str, Line], list[str]]:
    loaded = load_recipe(RECIPES / recipe, list(overrides))
    plan = Plan(loaded, [], "tiny", 4, path)
    return {line.name: line for line in validation.check_trainer(plan)}, plan.notes


def test_unsloth_s_own_lines_are_skipped_with_the_command_that_installs_it(tmp_path: Path) -> None:
    lines, notes = lines_of(tmp_path, "grpo/unsloth_quickstart.yaml")
    assert {name: line.status for name, line in lines.items()} == {
        "chat completions": "PASS",
        "configuration": "PASS",
        "trained tokens": "SKIPPED",
        "steps, weights, rewards, checkpoint, stop and resume": "SKIPPED",
    }
    assert lines["steps, weights, rewards, checkpoint, stop and resume"].detail == MISSING
    assert notes == ["the policy loaded by Transformers, not by Unsloth"]


def test_a_setting_that_does_not_exist_is_found_without_unsloth(tmp_path: Path) -> None:
    lines, _ = lines_of(tmp_path, "grpo/unsloth_quickstart.yaml", "settings.learning_rte=1")
    assert lines["configuration"].status == "FAIL"
    assert "Did you mean 'learning_rate'?" in lines["configuration"].detail


def test_a_recipe_that_unsloth_refuses_on_a_machine_that_has_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "check_packages", lambda: None)
    monkeypatch.setattr(validation, "on_cpu", lambda: True)

    def refuse(recipe: Any) -> None:
        raise InputError("sampling.context_length is not set.")

    monkeypatch.setattr(validation, "check_requirements", refuse)
    lines, _ = lines_of(tmp_path, "grpo/unsloth_quickstart.yaml")
    assert {name: (line.status, line.detail) for name, line in lines.items()} == {
        "configuration": ("FAIL", "sampling.context_length is not set.")
    }


def test_the_tiny_policy_is_not_quantised(tmp_path: Path) -> None:
    _, notes = lines_of(tmp_path, "sft/unsloth_from_rollouts.yaml")
    assert "without unsloth.load_in_4bit" in notes
