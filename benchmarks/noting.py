"""An environment that costs next to nothing, so that what a run keeps per rollout shows; a rollout is a row of 1 KB."""

from collections.abc import Generator
from random import Random
from typing import Any

from gymrail import Environment, Rollout, Task
from gymrail.environment import Turn


class NotingTask(Task):
    """A number to be written down."""

    number: int


class Noting(Environment[NotingTask]):
    """Write a number down."""

    @classmethod
    def generate(cls, rng: Random) -> NotingTask:
        number = rng.randrange(10**12)
        return NotingTask.ask(f"Write down the number {number} and nothing else, please.", number=number)

    def verify(self, rollout: Rollout) -> float:
        return float(rollout.final_text == str(self.task.number))

    def solve(self) -> Generator[Turn, Any, None]:
        yield str(self.task.number)
