"""An environment that keeps a core busy: its tool computes in plain Python, so more processes are what helps."""

from collections.abc import Generator
from random import Random
from typing import Any

from gymrail import Environment, Rollout, Task, tool
from gymrail.environment import Turn, call

ROUNDS = 200_000
"""About 25 milliseconds of CPU time."""


class BurningTask(Task):
    """Where the computation starts."""

    start: int


class Burning(Environment[BurningTask]):
    """Compute for a while, twice, and say what came out."""

    @classmethod
    def generate(cls, rng: Random) -> BurningTask:
        start = rng.randrange(10**9)
        return BurningTask.ask(f"Compute from {start}, twice.", start=start)

    def seed(self) -> None:
        self.value = self.task.start

    @tool
    def compute(self) -> int:
        """Compute the next value."""
        value = self.value
        for _ in range(ROUNDS):
            value = (value * 1103515245 + 12345) % 2147483648
        self.value = value
        return value

    def verify(self, rollout: Rollout) -> float:
        return float(rollout.final_text == str(self.value) and len(rollout.calls) == 2)

    def solve(self) -> Generator[Turn, Any, None]:
        yield call("compute")
        value = yield call("compute")
        yield str(value)
