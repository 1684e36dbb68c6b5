from random import Random
from typing import Any

from gymrail import Config, Environment, Reply, Rollout, Task, Verdict


class GuessTask(Task):
    secret: int


class GuessConfig(Config):
    turns: int = 8
    """Guesses that the agent has; `environment.yaml`, a recipe's `config:` and `with_config` change it."""


class Guess(Environment[GuessTask]):
    """Guess a number; the user says higher or lower. No tools: the talk itself is the game."""

    Config = GuessConfig
    reward_range = (0.0, 2.0)

    @classmethod
    def setup(cls, config: GuessConfig) -> dict[str, str]:
        """Load once per process what all episodes share."""
        return {"higher": "Higher.", "lower": "Lower."}

    @classmethod
    def generate(cls, rng: Random) -> GuessTask:
        return GuessTask.ask("Guess my number from 1 to 100. Answer with a number alone.", secret=rng.randint(1, 100))

    def reply(self, rollout: Rollout) -> Reply | None:
        guess = _number(rollout.final_text)
        if guess == self.task.secret or len(rollout.answers) >= self.config.turns:
            return None
        return Reply(self.shared["higher" if guess < self.task.secret else "lower"], reward=-0.01)

    def verify(self, rollout: Rollout) -> Verdict:
        found = _number(rollout.final_text) == self.task.secret
        clean = all(answer.strip().isdigit() for answer in rollout.answers)
        return Verdict(reward_components={"found": float(found), "format": float(found and clean)})

    def solve(self) -> Any:
        low, high = 1, 100
        while True:
            middle = (low + high) // 2
            heard = yield str(middle)
            low, high = (middle + 1, high) if heard == self.shared["higher"] else (low, middle - 1)


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0
