"""Any Aviary environment; by default a chest with three locks whose codes follow from each other.

One row:

    {"task_idx": 3, "responses_create_params": {"input": []}}

`config.dataset` names another data set: one that Aviary knows (`gsm8k`, `hotpotqa`) or MODULE:CLASS; `in_thread: true`
goes with one that may block.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from random import Random

from gymrail.bridges.aviary import AviaryConfig, AviaryEnvironment
from gymrail.environment import Call, Turn, call
from gymrail.errors import InputError


class Aviary(AviaryEnvironment):
    """Play the environment of the row's `task_idx`; the reward is what it paid."""

    class Config(AviaryConfig):
        dataset: str = "gymrail_environments.aviary.locks:LockDataset"
        in_thread: bool = False

    reward_range = (0.0, 1.0)

    def solve(self) -> Generator[Turn, str, None]:
        if not self.config.dataset.endswith(":LockDataset"):
            raise InputError(f"There is a gold policy for the chests alone, and none for {self.config.dataset!r}.")
        prompt = str(self.task.input_items[-1]["content"])
        colors = prompt.partition(": ")[2].partition(".")[0].split(", ")
        notes = {}
        for color in colors:
            notes[color] = yield call("read_note", color=color)
        told = " ".join(notes.values())
        ((first, factor, base),) = re.findall(r"The (\w+) code is (\d+) times (\d+)", told)
        ((second, more),) = re.findall(r"The (\w+) code is (\d+) more", told)
        (less,) = re.findall(r"divided by (\d+)", told)
        (third,) = notes.keys() - {first, second}
        one = int(factor) * int(base)
        two = one + int(more)
        for color, code in ((first, one), (second, two), (third, two - one // int(less))):
            yield call("open_lock", color=color, code=code)

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Mistake a digit of a code, so that the lock stays shut; the next lock is tried all the same."""
        if not isinstance(turn, Call) or turn.name != "open_lock":
            return turn
        return Call(turn.name, {**turn.arguments, "code": turn.arguments["code"] + rng.choice((-10, -1, 1, 10))})
