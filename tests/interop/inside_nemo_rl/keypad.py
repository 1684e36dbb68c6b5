"""An environment that ends in every way an episode can: scored, out of a budget, and with a tool that broke."""

from __future__ import annotations

from random import Random

from gymrail import Environment, Rollout, Task, tool


class KeypadTask(Task):
    first: int
    second: int
    breaks: bool = False
    """Whether the pad catches fire at the second digit."""


class Keypad(Environment[KeypadTask]):
    """Type a digit, be asked for another, type it."""

    typed: list[int]

    @classmethod
    def generate(cls, rng: Random) -> KeypadTask:
        first, second = rng.randint(0, 9), rng.randint(0, 9)
        return KeypadTask.ask(f"Type {first}, née “{first}”.", first=first, second=second, breaks=rng.random() < 0.25)

    def seed(self) -> None:
        self.typed = []

    @tool
    def press(self, digit: int) -> str:
        """Press a key.

        Args:
            digit: The key.
        """
        if self.task.breaks and self.typed:
            raise RuntimeError("the pad is on fire")
        self.typed.append(digit)
        return f"The pad shows {digit}."

    def reply(self, rollout: Rollout) -> str | None:
        return f"Now type {self.task.second}." if len(rollout.answers) == 1 else None

    def verify(self, rollout: Rollout) -> float:
        return float(self.typed == [self.task.first, self.task.second])
