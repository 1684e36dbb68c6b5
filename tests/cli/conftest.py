"""Runs the command line as a person does: in this process where only text and exit code matter."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from gymrail.cli import app


class Ran(NamedTuple):
    code: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]

ECHO = '''
from random import Random

from gymrail import Environment, Rollout, Task


class EchoTask(Task):
    number: int


class Echo(Environment[EchoTask]):
    """Say the number."""

    @classmethod
    def generate(cls, rng: Random) -> EchoTask:
        number = rng.randint(0, 10**6)
        return EchoTask.ask(f"Say {number}", number=number)

    def verify(self, rollout: Rollout) -> float:
        return float(rollout.final_text == str(self.task.number))

    def solve(self):
        yield str(self.task.number)

    def sabotage(self, turn, rng):
        return "no"
'''


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)

    def invoke(*arguments: object) -> Ran:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="gymrail")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """An environment in one file: say the number in the prompt."""
    file = tmp_path / "echo.py"
    file.write_text(ECHO, encoding="utf-8")
    return file
