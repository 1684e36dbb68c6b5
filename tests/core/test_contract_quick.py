"""What is asked of an environment before a run trains on it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gymrail import contract_quick
from gymrail.contract_quick import Checked, check_before_training, check_quickly
from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail.registry import find

SAY = '''
import asyncio
from random import Random

from gymrail import Environment, Rollout, Task

CLOSED = []


class Say(Environment):
    """Say the number."""

    @classmethod
    def generate(cls, rng: Random) -> Task:
        number = rng.randint(0, 10**6)
        return Task.ask(f"Say {number}", number=number)

    async def seed(self) -> None:
        pass

    async def close(self) -> None:
        CLOSED.append(self.task.id)

    def verify(self, rollout: Rollout) -> float:
        return 1.0 if rollout.final_text == str(self.task.row["number"]) else 0.0

    def solve(self):
        yield str(self.task.row["number"])
'''
LONG = 100.0
"""Seconds that no check here comes near."""


def write(folder: Path, *change: str) -> Path:
    file = folder / "say.py"
    file.write_text(SAY.replace(*change) if change else SAY, encoding="utf-8")
    return file


def checked(file: Path, *splits: str, seconds: float = LONG) -> tuple[list[tuple[str, str]], str | None]:
    spec = find(str(file))
    report, late = asyncio.run(
        check_quickly(Checked(spec, splits or ("train", "validation"), str(file)), seconds=seconds)
    )
    return [(check.name, check.detail) for check in report.failures], late


def recipe(file: Path, **fields: object) -> Recipe:
    return Recipe.model_validate(
        {"name": "t", "algorithm": "grpo", "model": "tiny", "mixture": [{"environment": str(file)}], **fields}
    )


def test_a_sound_environment_passes_whole(tmp_path: Path) -> None:
    assert checked(write(tmp_path)) == ([], None)


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (("yield str(", "yield 'about ' + str("), "gold", "earned 0.0, not 1"),
        (("return 1.0 if", "return rollout.nothing if"), "gold", "'Rollout' object has no attribute 'nothing'"),
        (("return 1.0 if rollout.final_text ==", "return 1.0 if rollout or"), "bad answers", "earn the maximum, 1,"),
        (("        pass", "        raise OSError('corpus.db is not there')"), "gold", "corpus.db is not there"),
        (("number = rng", "number = no_rng"), "tasks", "no_rng"),
    ],
)
def test_what_is_wrong_is_named_by_check_and_reason(
    tmp_path: Path, change: tuple[str, str], name: str, words: str
) -> None:
    ((found, detail), *_), _ = checked(write(tmp_path, *change))
    assert found == name
    assert words in detail


def test_a_crash_on_malformed_calls_is_found_where_there_is_no_gold_policy(tmp_path: Path) -> None:
    change = '    def solve(self):\n        yield str(self.task.row["number"])\n', ""
    file = write(tmp_path, *change)
    file.write_text(file.read_text().replace("if rollout.final_text ==", "if [][0] =="), encoding="utf-8")
    ((name, detail), *_), _ = checked(file)
    assert name == "bad answers"
    assert "list index out of range" in detail


def test_a_split_without_tasks_is_found_before_it_is_evaluated_on(tmp_path: Path) -> None:
    ((name, detail),), _ = checked(write(tmp_path), "train", "benchmark")
    assert name == "tasks"
    assert "no split 'benchmark'" in detail


def test_a_package_that_the_environment_needs_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract_quick, "missing_packages", lambda extra: ["math-verify"])
    file = write(tmp_path)
    file.with_suffix(".yaml").write_text("extra: math\n", encoding="utf-8")
    ((name, detail),), _ = checked(file)
    assert name == "packages"
    assert "math-verify" in detail
    assert "pip install 'gymrail[math]'" in detail


def test_what_takes_too_long_is_left_closed_and_said_not_failed(tmp_path: Path) -> None:
    file = write(tmp_path, "        pass", "        await asyncio.Event().wait()")
    problems, late = checked(file, seconds=0.2)
    assert problems == []
    assert late == "0 of 12 episodes within 0.2 s"


def test_a_refusal_has_the_commands_that_show_more_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract_quick, "CHECK_SECONDS", LONG)
    file = write(tmp_path, "yield str(", "yield 'about ' + str(")
    with pytest.raises(
        InputError, match=rf"'say' fails its check \(gold\): task 0 .* gymrail check {file}\. .*--no-check"
    ):
        check_before_training(recipe(file), [find(str(file))])
    assert check_before_training(recipe(file, check=False), [find(str(file))]) == []


def test_a_run_that_is_not_checked_whole_in_time_goes_on_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract_quick, "CHECK_SECONDS", 0.2)
    file = write(tmp_path, "        pass", "        await asyncio.Event().wait()")
    (note,) = check_before_training(recipe(file), [find(str(file))])
    assert "0 of 12 episodes" in note
    assert "gymrail check" in note
