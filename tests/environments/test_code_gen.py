"""code_gen: a program earns its reward by its tests, in both styles, and a row of the public format runs unchanged."""

import asyncio
from typing import Any

import pytest

from gymrail import GymrailError, Rollout
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.code_gen.environment import CodeGenTask

SPEC = find("code_gen")
ROW: dict[str, Any] = {
    "responses_create_params": {"input": [{"role": "user", "content": "Print the sum of two numbers."}]},
    "verifier_metadata": {"unit_tests": {"inputs": ["1 2\n", "5 6\n"], "outputs": ["3\n", "11\n"]}},
    "hash_id": "x",
    "dataset": "apps",
}


def played(text: str, row: dict[str, Any] = ROW) -> Rollout:
    rollout = asyncio.run(play(SPEC, CodeGenTask.from_row(row), ScriptedModel([text])))
    assert rollout.failure is None
    return rollout


def test_a_row_of_the_public_format_runs_unchanged() -> None:
    rollout = played("```python\nprint(sum(map(int, input().split())))\n```")
    assert (rollout.reward, rollout.metrics) == (1.0, {"passed_share": 1.0, "unit_tests": 2})
    assert rollout.task.row == ROW


def test_half_right_earns_nothing_and_says_where() -> None:
    rollout = played("```python\nprint(3)\n```")
    assert (rollout.reward, rollout.metrics["passed_share"]) == (0.0, 0.5)
    assert rollout.verdict_reason == "test 2: wrong output '3\\n'"


@pytest.mark.parametrize("text", ["", "print(3)", "```python\n```", "```python\nimport os; os._exit(0)\n```"])
def test_nothing_and_leaving_early_earn_nothing(text: str) -> None:
    assert played(text).reward == 0.0


def test_a_row_whose_tests_do_not_fit_together_is_refused_with_its_place() -> None:
    bad = {**ROW, "verifier_metadata": {"unit_tests": {"inputs": ["1"], "outputs": []}}}
    with pytest.raises(GymrailError, match=r"rows\.jsonl, line 3: field 'unit_tests': 1 inputs and 0 outputs"):
        CodeGenTask.from_row(bad, "rows.jsonl, line 3")


def test_generated_tasks_cover_every_family_in_both_styles_and_need_more_than_one_answer() -> None:
    styles = set()
    for index in range(300):
        task = SPEC.generate("train", index)
        assert isinstance(task, CodeGenTask)
        assert len(set(task.unit_tests.outputs)) >= 3
        styles.add((str(task.reference_solution).split("(")[0], task.unit_tests.fn_name))
    assert len(styles) == 20
