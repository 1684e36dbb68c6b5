import json
import sys
from pathlib import Path

import pytest

RECIPE = """
name: quick
algorithm: grpo
trainer: their_trainer
model: tiny
mixture:
  - {environment: word_math}
"""

TRAINER = """
import json
from pathlib import Path

from gymrail.errors import GymrailError


def train(recipe):
    if recipe.seed == 13:
        raise GymrailError("The loss is not finite.")
    if recipe.seed == 14:
        raise KeyboardInterrupt
    said = {"seed": recipe.seed, "settings": recipe.settings, "check": recipe.check}
    Path(recipe.output).write_text(json.dumps(said))
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe for a trainer that another installed package brings."""
    (tmp_path / "their_package.py").write_text(TRAINER, encoding="utf-8")
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n", encoding="utf-8")
    points = "[gymrail.trainers]\ntheir_trainer = their_package:train\nbroken = no_such_module:train\n"
    (metadata / "entry_points.txt").write_text(points, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_package", raising=False)
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return file


def test_train_hands_the_recipe_with_its_overrides_to_the_trainer(run, recipe: Path, tmp_path: Path) -> None:
    done = run("train", recipe, f"output={tmp_path / 'out'}", "seed=7", "settings.max_steps=3")
    assert done.code == 0
    assert json.loads((tmp_path / "out").read_text()) == {"seed": 7, "settings": {"max_steps": 3}, "check": True}


def test_no_check_reaches_the_trainer(run, recipe: Path, tmp_path: Path) -> None:
    done = run("train", recipe, f"output={tmp_path / 'out'}", "--no-check")
    assert done.code == 0
    assert json.loads((tmp_path / "out").read_text())["check"] is False


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer=tlr"], "Did you mean 'trl'?"),
        (["algoritm=sft"], "Did you mean 'algorithm'?"),
        (["trainer=broken"], "of the package 'theirs' cannot be loaded: No module named 'no_such_module'"),
        (["seed"], "'seed'"),
    ],
)
def test_a_wrong_recipe_exits_with_2_and_names_what_is_allowed(run, recipe: Path, overrides, message) -> None:
    done = run("train", recipe, *overrides)
    assert done.code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_that_does_not_exist_exits_with_2(run, tmp_path: Path) -> None:
    done = run("train", tmp_path / "nope.yaml")
    assert done.code == 2
    assert "nope.yaml" in done.stderr


def test_a_training_that_fails_exits_with_1_and_its_message(run, recipe: Path) -> None:
    done = run("train", recipe, "seed=13")
    assert (done.code, done.stderr) == (1, "Error: The loss is not finite.\n")


def test_an_interrupted_training_exits_with_130_and_says_how_to_go_on(run, recipe: Path) -> None:
    done = run("train", recipe, "seed=14")
    assert done.code == 130
    assert f"gymrail train {recipe} seed=14 resume=true" in done.stderr


def test_trainers_that_run_in_one_process_say_what_to_do_instead(run, recipe: Path) -> None:
    for trainer, words in (("unsloth", "trainer=trl takes several"), ("nemo_rl", "settings.cluster.gpus_per_node=N")):
        done = run("train", recipe, f"trainer={trainer}", "--processes", "2")
        assert done.code == 2
        assert words in done.stderr
