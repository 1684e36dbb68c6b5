"""`--config` on the command line: an environment plays with the setting, says whose it is, and a run remembers it."""

import json
from pathlib import Path

import pytest

SOURCE = '''
from random import Random

from gymrail import Config, Environment, Rollout, Task


class Settings(Config):
    word: str = "one"


class Repeat(Environment[Task]):
    """Say the word that the settings hold."""

    Config = Settings

    @classmethod
    def generate(cls, rng: Random) -> Task:
        return Task.ask(f"Task {rng.random()}")

    def verify(self, rollout: Rollout) -> float:
        return float(rollout.final_text == self.config.word)

    def solve(self):
        yield "two"
'''


@pytest.fixture
def repeat(tmp_path: Path) -> Path:
    path = tmp_path / "repeat.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def mean(done, name: str = "repeat") -> float:
    return json.loads(done.stdout)["environments"][name]["reward"]["mean"]


@pytest.mark.parametrize("more", [(), ("--workers", 2)])
def test_a_rollout_is_played_with_the_setting_and_judged_again_with_it(run, repeat: Path, tmp_path: Path, more) -> None:
    command = ("rollout", repeat, "-m", "oracle", "-n", 3, "--json", *more)
    assert mean(run(*command, "--run", tmp_path / "plain")) == 0.0
    assert mean(run(*command, "--run", tmp_path / "set", "--config", "word=two")) == 1.0
    assert run("reverify", tmp_path / "set", "--json").code == 0
    config = (tmp_path / "set" / "config.yaml").read_text(encoding="utf-8")
    assert "word: two" in config


def test_with_two_environments_a_setting_says_whose_it_is(run, repeat: Path, echo: Path, tmp_path: Path) -> None:
    command = ("rollout", repeat, echo, "-m", "oracle", "-n", 2, "--json", "--run", tmp_path / "run")
    refused = run(*command, "--config", "word=two")
    assert refused.code == 2
    assert "does not say whose it is; write NAME.word=VALUE with one of repeat, echo" in refused.stderr
    assert not (tmp_path / "run").exists()
    assert mean(run(*command, "--config", "repeat.word=two")) == 1.0


def test_an_unknown_setting_names_those_there_are(run, repeat: Path, tmp_path: Path) -> None:
    done = run("check", repeat, "--config", "words=two")
    assert done.code == 2
    assert "unknown key 'words'" in done.stderr
