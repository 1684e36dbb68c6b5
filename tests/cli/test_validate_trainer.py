"""`gymrail validate-trainer` as a person runs it; what needs a trainer is tested with the trainers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

CHECK = """
from gymrail.validation.report import Points


def check_trainer(plan):
    for group in ("endpoint", "tokens"):
        yield Points(group).passed("all", "well")
    plan.notes.append("their small model")
    assert plan.steps == 3, plan
    if plan.recipe.seed == 13:
        raise ValueError("no room on the disk")
    yield Points("loop").skipped("steps", "there is no GPU here", "Take one with a GPU.")
"""


@pytest.fixture
def recipe(tmp_path: Path, echo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe for a trainer that another installed package brings, which checks itself; and one that does not."""
    package = tmp_path / "site" / "their_package"
    package.mkdir(parents=True)
    for name, text in {"__init__": "", "train": "def train(recipe): ...", "validation": CHECK}.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    (package.parent / "other_package").mkdir()
    (package.parent / "other_package" / "train.py").write_text("def train(recipe): ...", encoding="utf-8")
    metadata = package.parent / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n", encoding="utf-8")
    points = "[gymrail.trainers]\ntheirs = their_package.train:train\nother = other_package.train:train\n"
    points += "broken = no_such_module.train:train\n"
    (metadata / "entry_points.txt").write_text(points, encoding="utf-8")
    monkeypatch.syspath_prepend(package.parent)
    for name in [name for name in sys.modules if name.startswith(("their_package", "other_package"))]:
        monkeypatch.delitem(sys.modules, name)
    file = tmp_path / "recipe.yaml"
    mixture = f"mixture:\n  - {{environment: {echo}}}\n  - {{environment: word_math}}\n"
    file.write_text(f"name: quick\nalgorithm: grpo\ntrainer: theirs\nmodel: tiny\n{mixture}", encoding="utf-8")
    return file


def lines_of(report: Path) -> dict[str, dict[str, Any]]:
    return {f"{line['group']}/{line['name']}": line for line in json.loads(report.read_text())["lines"]}


def test_the_report_is_printed_and_written_and_skipped_lines_are_counted(run, recipe: Path, tmp_path: Path) -> None:
    report = tmp_path / "out" / "report.json"
    done = run("validate-trainer", recipe, "--steps", "3", "--json", report)

    assert done.code == 0, done.stdout
    shown = done.stdout.splitlines()
    assert shown[0] == "quick: grpo with trainer theirs, checked with the tiny policy."
    assert shown[-1] == "10 passed, 0 failed, 1 skipped."
    assert "Run here: their small model." in shown
    assert "  SKIPPED  steps: there is no GPU here" in shown
    assert "           -> Take one with a GPU." in shown
    written = json.loads(report.read_text())
    assert (written["passed"], written["counts"]) == (True, {"PASS": 10, "FAIL": 0, "SKIPPED": 1})
    assert written["notes"] == ["their small model"]
    assert lines_of(report)["environments/word_math"]["detail"].startswith("environment.yaml; ")
    assert lines_of(report)["environments/echo"]["detail"].startswith("no environment.yaml")


def test_strict_fails_on_skipped_lines(run, recipe: Path) -> None:
    assert run("validate-trainer", recipe, "--steps", "3", "--strict").code == 1


def test_an_environment_that_does_not_exist_fails_its_line_and_leaves_the_rest_out(
    run, recipe: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    done = run("validate-trainer", recipe, "mixture.1.environment=word_maths", "--json", report)
    assert done.code == 1
    lines = lines_of(report)
    assert lines["environments/word_maths"]["status"] == "FAIL"
    assert "Did you mean 'word_math'?" in lines["environments/word_maths"]["detail"]
    assert lines["environments/echo"]["status"] == "PASS"
    rest = [line["status"] for name, line in lines.items() if not name.startswith("environments/")]
    assert rest == ["SKIPPED"] * 5


def test_an_environment_that_breaks_its_contract_fails_its_line_alone(
    run, recipe: Path, echo: Path, tmp_path: Path
) -> None:
    text = echo.read_text().replace("float(rollout.final_text == str(self.task.number))", "1.0")
    echo.write_text(text, encoding="utf-8")
    report = tmp_path / "report.json"
    done = run("validate-trainer", recipe, "--steps", "3", "--json", report)
    assert done.code == 1
    failed = {name: line for name, line in lines_of(report).items() if line["status"] == "FAIL"}
    assert failed.keys() == {"environments/echo"}
    assert "empty answer: mean reward 1" in failed["environments/echo"]["detail"]
    assert failed["environments/echo"]["fix"] == f"Every check: gymrail check {echo}"


def test_settings_reach_the_environment_that_they_name(run, recipe: Path, echo: Path, tmp_path: Path) -> None:
    text = echo.read_text().replace("from gymrail import ", "from gymrail import Config, ")
    settings = "class Echo(Environment[EchoTask]):\n    class Config(Config):\n        most: int = 10\n\n"
    echo.write_text(text.replace("class Echo(Environment[EchoTask]):\n", settings), encoding="utf-8")
    report = tmp_path / "report.json"
    run("validate-trainer", recipe, "--steps", "3", "--config", "echo.most=7", "--json", report)
    assert ", most=7; " in lines_of(report)["environments/echo"]["detail"]

    done = run("validate-trainer", recipe, "--config", "echo.mots=7", "--json", report)
    assert done.code == 1
    assert "Did you mean 'most'?" in lines_of(report)[f"environments/{echo}"]["detail"]
    done = run("validate-trainer", recipe, "--config", "most=7")
    assert (done.code, "write NAME.KEY=VALUE" in done.stderr) == (2, True)


def test_a_part_that_breaks_off_is_a_failed_line(run, recipe: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = run("validate-trainer", recipe, "seed=13", "--steps", "3", "--json", report)
    assert done.code == 1
    assert "Traceback" not in done.stderr
    line = lines_of(report)["tokens/broke off after 'all'"]
    assert (line["status"], line["detail"]) == ("FAIL", "ValueError: no room on the disk")


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        ("other", "the trainer's package has no module other_package.validation"),
        ("broken", "No module named 'no_such_module'"),
    ],
)
def test_a_trainer_that_cannot_check_itself_is_skipped_with_why(
    run, recipe: Path, tmp_path: Path, trainer: str, words: str
) -> None:
    report = tmp_path / "report.json"
    done = run("validate-trainer", recipe, f"trainer={trainer}", "--json", report)
    assert done.code == 0
    lines = [line for line in lines_of(report).values() if line["group"] in ("endpoint", "tokens", "loop")]
    assert [line["status"] for line in lines] == ["SKIPPED"] * 3
    assert words in lines[0]["detail"]


def test_a_trainer_that_does_not_exist_exits_with_2(run, recipe: Path) -> None:
    done = run("validate-trainer", recipe, "trainer=thiers")
    assert (done.code, "Did you mean 'theirs'?" in done.stderr) == (2, True)


def test_a_folder_that_is_kept_must_be_new(run, recipe: Path, tmp_path: Path) -> None:
    done = run("validate-trainer", recipe, "--steps", "3", "--keep", recipe.parent)
    assert (done.code, "not an empty folder" in done.stderr) == (2, True)
    assert run("validate-trainer", recipe, "--steps", "3", "--keep", tmp_path / "kept").code == 0
    assert (tmp_path / "kept").is_dir()


def test_a_recipe_without_a_mixture_has_nothing_to_check(run, recipe: Path, tmp_path: Path) -> None:
    recipe.write_text("name: s\nalgorithm: sft\ntrainer: theirs\nmodel: tiny\ndata: [runs/x]\n", encoding="utf-8")
    report = tmp_path / "report.json"
    assert run("validate-trainer", recipe, "--json", report).code == 0
    assert json.loads(report.read_text())["counts"] == {"PASS": 0, "FAIL": 0, "SKIPPED": 6}
