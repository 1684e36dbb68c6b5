"""Two small environments and a recipe of both."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from random import Random
from typing import Any

from gymrail import Environment, Rollout, Task, Verdict, call, tool
from gymrail.environment import Turn
from gymrail.recipe import Recipe
from gymrail.spec import EnvironmentSpec
from gymrail.validation.plan import Plan


class Number(Task):
    number: int


class Echo(Environment[Number]):
    """Say the number."""

    @classmethod
    def generate(cls, rng: Random) -> Number:
        number = rng.randint(0, 10**6)
        return Number.ask(f"Say {number}.", number=number)

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(float(rollout.final_text == str(self.task.number)), metrics={"length": len(rollout.final_text)})

    def solve(self) -> Generator[Turn, Any, None]:
        yield str(self.task.number)

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        return "no"


class Press(Echo):
    """Press the number."""

    pressed: int

    def seed(self) -> None:
        self.pressed = -1

    @tool
    def press(self, number: int) -> str:
        """Press a number.

        Args:
            number: What to press.
        """
        self.pressed = number
        return "pressed"

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(float(self.pressed == self.task.number))

    def solve(self) -> Generator[Turn, Any, None]:
        yield call("press", number=self.task.number)
        yield "Done."


def plan_of(path: Path, *classes: type[Environment[Any]], weights: tuple[float, ...] = (), **keys: Any) -> Plan:
    """A plan for these environments, named as their classes."""
    specs = [EnvironmentSpec(cls.__name__.lower(), cls) for cls in classes or (Echo, Press)]
    mixture = [
        {"environment": spec.name, "weight": weight}
        for spec, weight in zip(specs, weights or (1.0,) * len(specs), strict=True)
    ]
    recipe = Recipe.model_validate(
        {"name": "small", "algorithm": "grpo", "model": "tiny", "mixture": mixture, **keys}
    )  # fmt: skip
    return Plan(recipe, specs, "tiny", 4, path)
