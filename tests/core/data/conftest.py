"""Small environments: one that makes its own tasks, one that reads them from a file."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import orjson
import pytest

from gymrail import Environment, Rollout, Task, tool
from gymrail.spec import DatasetEntry, EnvironmentSpec, Manifest


class QuizTask(Task):
    answer: str
    points: int = 1


class Quiz(Environment[QuizTask]):
    """Answers are looked up, then given."""

    @tool
    def look_up(self, words: list[str], exact: bool = False) -> str:
        """Look something up.

        Args:
            words: What to look for.
            exact: Whether all must match.
        """
        return " ".join(words)

    def verify(self, rollout: Rollout) -> float:
        return float(rollout.final_text == self.task.answer)


class Sums(Quiz):
    @classmethod
    def generate(cls, rng: Random) -> QuizTask:
        a, b = rng.randint(0, 10**6), rng.randint(0, 10**6)
        return QuizTask.ask(f"{a} + {b}?", answer=str(a + b))


@pytest.fixture
def sums() -> EnvironmentSpec:
    return EnvironmentSpec("sums", Sums)


@pytest.fixture
def make_quiz(tmp_path: Path) -> Callable[..., EnvironmentSpec]:
    def make(name: str, count: int = 10, **entry: object) -> EnvironmentSpec:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        rows = [
            {"responses_create_params": {"input": f"{name} {index}"}, "answer": str(index)} for index in range(count)
        ]
        (folder / "train.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        values = {"name": "train", "split": "train", "path": "train.jsonl", **entry}
        return EnvironmentSpec(name, Quiz, Manifest(datasets=[DatasetEntry.model_validate(values)]), path=folder)

    return make
