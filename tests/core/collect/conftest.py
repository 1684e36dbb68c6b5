"""A small stateful environment, and rollouts made by hand."""

from collections.abc import Callable, Generator
from random import Random
from typing import Any

import pytest

from gymrail import Environment, Outcome, Rollout, Task, Verdict, call, tool
from gymrail.errors import Failure
from gymrail.spec import EnvironmentSpec


class CounterTask(Task):
    initial_count: int
    expected_count: int


class Counter(Environment[CounterTask]):
    """Count with a tool."""

    @classmethod
    def generate(cls, rng: Random) -> CounterTask:
        start, end = rng.randint(0, 99), rng.randint(100, 199)
        return CounterTask.ask(f"The counter shows {start}. Make it {end}.", initial_count=start, expected_count=end)

    def seed(self) -> None:
        self.count = self.task.initial_count

    @tool
    def increment(self, by: int) -> int:
        """Add `by` to the counter."""
        self.count += by
        return self.count

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(
            float(self.count == self.task.expected_count),
            metrics={"distance": abs(self.count - self.task.expected_count)},
        )

    def solve(self) -> Generator[Any, Any, None]:
        yield call("increment", by=self.task.expected_count - self.task.initial_count)
        yield "Done."


@pytest.fixture
def counter() -> EnvironmentSpec:
    return EnvironmentSpec("counter", Counter)


@pytest.fixture
def make_rollout() -> Callable[..., Rollout]:
    def make(
        index: int = 0, repeat: int = 0, reward: float | None = 1.0, environment: str = "counter", **fields: Any
    ) -> Rollout:
        rollout = Rollout(
            environment, Task.ask(f"question {index}"), f"{environment}-{index}-{repeat}", index, repeat, **fields
        )
        rollout.conversation = [
            *rollout.task.input_items,
            {"type": "message", "role": "assistant", "content": f"answer {index}"},
        ]
        rollout.prompt_length = 1
        rollout.reward = reward
        failure = Failure("model", "model", "the endpoint is down")
        rollout.outcome = rollout.outcome or (Outcome("failed", failure) if reward is None else Outcome("scored"))
        return rollout

    return make
