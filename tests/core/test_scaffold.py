"""A new environment passes its own test and the contract; bad names and existing folders are refused."""

import ast
import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from gymrail.contract import check_environment
from gymrail.errors import InputError
from gymrail.registry import find
from gymrail.scaffold import new_environment


def test_a_new_environment_passes_the_test_that_it_comes_with(tmp_path: Path) -> None:
    folder = new_environment("fruit_basket", tmp_path / "mine")
    assert folder == tmp_path / "mine" / "fruit_basket"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "environment.py", "environment.yaml", "test_environment.py",
    ]  # fmt: skip
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


@pytest.mark.parametrize("name", ["x", "task", "rollout", "environment", "my_2nd_try", "task_task"])
def test_any_allowed_name_gives_an_environment_that_keeps_the_contract(name: str, tmp_path: Path) -> None:
    spec = find(str(new_environment(name, tmp_path)))
    assert spec.name == name
    report = asyncio.run(check_environment(spec, tasks=4))
    assert report.failures == report.warnings == ()


def test_the_written_files_hold_no_placeholder_and_every_file_names_the_environment(tmp_path: Path) -> None:
    folder = new_environment("fruit_basket", tmp_path)
    for file in folder.iterdir():
        assert "$" not in file.read_text(encoding="utf-8")
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("# fruit_basket\n")
    module = ast.parse((folder / "environment.py").read_text(encoding="utf-8"))
    assert [node.name for node in module.body if isinstance(node, ast.ClassDef)] == ["FruitBasketTask", "FruitBasket"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("FruitBasket", "Did you mean 'fruit_basket'?"),
        ("fruit-basket", "Did you mean 'fruit_basket'?"),
        ("2048", "Did you mean 'env_2048'?"),
        ("class", "Did you mean 'class_task'?"),
        ("_x_", "Did you mean 'x'?"),
        ("../up", "Did you mean 'up'?"),
        ("", "such as 'word_count'."),
        ("é", "such as 'word_count'."),
    ],
)
def test_a_bad_name_is_refused_with_what_is_allowed(name: str, suggestion: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        new_environment(name, tmp_path)
    assert str(error.value).startswith(f"{name!r} cannot name an environment; allowed are lower-case words")
    assert str(error.value).endswith(suggestion)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="exists already; choose another name"):
        new_environment("taken", tmp_path)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["notes.txt"]


def test_a_parent_that_is_a_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written"):
        new_environment("basket", tmp_path / "file")
