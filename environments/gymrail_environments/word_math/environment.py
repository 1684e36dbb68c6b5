"""Sums written with words: call the one right tool of a calculator, once. Of the quickstart.

One row:

    {"responses_create_params": {"input": "4 times 5 ?"}, "word": "times", "a": 4, "b": 5}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import Any, Literal

from pydantic import Field

from gymrail import Environment, Rollout, Task, Verdict, call
from gymrail.environment import Config, Turn
from gymrail.rollout import ToolCall
from gymrail_mcp_servers.calculator.server import Calculator

TOOLS = {"plus": "add", "minus": "subtract", "times": "multiply"}
LARGEST = 20


class WordMathTask(Task):
    word: Literal["plus", "minus", "times"]
    a: int
    b: int

    @property
    def result(self) -> int:
        return {"plus": self.a + self.b, "minus": self.a - self.b, "times": self.a * self.b}[self.word]


class WordMathConfig(Config):
    digits: int | None = Field(None, ge=1, le=12)
    """Of a generated task's numbers, at most; every length equally often, and the row says which as `digits`. Without
    it, numbers go from 0 to 20."""


class WordMath(Environment[WordMathTask]):
    """Answer "4 times 5 ?" with one call of the right tool. The episode ends with the first call."""

    Config = WordMathConfig

    calculator: Calculator

    @classmethod
    def generate(cls, rng: Random, config: WordMathConfig | None = None) -> WordMathTask:
        largest, fields = LARGEST, dict[str, Any]()
        if config is not None and config.digits is not None:
            fields["digits"] = digits = rng.randint(1, config.digits)
            largest = 10**digits - 1
        least = 0 if largest <= LARGEST else (largest + 1) // 10
        while True:
            a, b = rng.randint(least, largest), rng.randint(least, largest)
            # Where two tools agree, as in 2 plus 2 and 2 times 2, the reward could not tell them apart.
            if len({a + b, a - b, a * b}) == len(TOOLS):
                break
        word = rng.choice(list(TOOLS))
        return WordMathTask.ask(f"{a} {word} {b} ?", word=word, a=a, b=b, **fields)

    def after_call(self, call: ToolCall) -> None:
        self.done = True

    def verify(self, rollout: Rollout) -> Verdict:
        if len(rollout.calls) != 1:
            return Verdict(0.0, reason=f"{len(rollout.calls)} calls instead of one")
        if self.calculator.results != [self.task.result]:
            return Verdict(0.0, reason=f"the call gave {rollout.calls[0].output}, not {self.task.result}")
        return Verdict(1.0)

    def solve(self) -> Generator[Turn, str, None]:
        yield call(TOOLS[self.task.word], a=self.task.a, b=self.task.b)
