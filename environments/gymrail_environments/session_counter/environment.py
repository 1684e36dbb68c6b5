"""A counter that lives as long as the episode: bring it from a hidden value to the asked one.

One row:

    {"responses_create_params": {"input": "Add 4, then 3, to the counter, and tell me its value."},
     "initial_count": 3, "expected_count": 10}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random

from gymrail import Environment, Rollout, Task, Verdict, call, tool
from gymrail.environment import Call, Turn


class SessionCounterTask(Task):
    initial_count: int
    expected_count: int


class SessionCounter(Environment[SessionCounterTask]):
    """Judged by the counter's final value alone, however it came about."""

    @classmethod
    def generate(cls, rng: Random) -> SessionCounterTask:
        start = rng.randint(0, 99)
        steps = [rng.randint(1, 99) for _ in range(rng.randint(1, 3))]
        target = start + sum(steps)
        if rng.random() < 0.5:
            prompt = f"Add {', then '.join(map(str, steps))} to the counter and tell me its value."
        else:
            prompt = f"The counter must show {target}. Look what it shows now and add what is missing."
        return SessionCounterTask.ask(prompt, initial_count=start, expected_count=target)

    def seed(self) -> None:
        self.count = self.task.initial_count

    @tool
    def increment_counter(self, count: int) -> str:
        """Add to the counter.

        Args:
            count: How much to add; negative to take away.
        """
        self.count += count
        return "ok"

    @tool(read_only=True)
    def get_counter_value(self) -> int:
        """Tell the counter's value."""
        return self.count

    def verify(self, rollout: Rollout) -> Verdict:
        if self.count == self.task.expected_count:
            return Verdict(1.0)
        return Verdict(0.0, reason=f"the counter shows {self.count}, not {self.task.expected_count}")

    def solve(self) -> Generator[Turn, str, None]:
        value = int((yield call("get_counter_value")))
        yield call("increment_counter", count=self.task.expected_count - value)
        yield f"The counter shows {self.task.expected_count}."

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Add a little too much or too little."""
        if isinstance(turn, Call) and turn.name == "increment_counter":
            return call("increment_counter", count=turn.arguments["count"] + rng.choice((-10, -1, 1, 10)))
        return turn
