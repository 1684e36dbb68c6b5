"""Games played turn by turn: mazes, guesses, words, Nim; and any environment that Gymnasium knows.

One row:

    {"responses_create_params": {"input": []}, "game": "maze", "seed": 7}

The rules and the first observation are the prompt; each answer holds one `<action>...</action>`.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from random import Random
from typing import Any

from pydantic import Field, model_validator

from gymrail import Rollout, Verdict
from gymrail.bridges.gymnasium import GymnasiumConfig, GymnasiumEnvironment, GymnasiumTask
from gymrail.environment import Turn
from gymrail.errors import InputError, did_you_mean
from gymrail_environments.games.boards import Game, Guess, Maze, Nim
from gymrail_environments.games.words import Words

GAMES: dict[str, type[Game]] = {"guess": Guess, "maze": Maze, "nim": Nim, "words": Words}


class GamesConfig(GymnasiumConfig):
    """With `id`, the game is that environment of Gymnasium's; without, `games` are drawn from."""

    games: tuple[str, ...] = tuple(GAMES)
    """Which games of our own are played."""
    total_range: tuple[float, float] = (0.0, 1.0)
    """Of an environment of Gymnasium's: the sums of step rewards that are worth 0 and 1; what is beyond is cut off."""
    max_invalid: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _is_known(self) -> GamesConfig:
        for name in self.games:
            if name not in GAMES:
                raise ValueError(f"there is no game {name!r}. {did_you_mean(name, GAMES)}")
        if not self.games or not self.total_range[0] < self.total_range[1]:
            raise ValueError("'games' needs a name, and 'total_range' a low end below its high end")
        return self


DEFAULTS = GamesConfig()  # pyright: ignore[reportCallIssue]


class GamesTask(GymnasiumTask):
    game: str


class Games(GymnasiumEnvironment):
    """The reward is the sum of the step rewards, in [0, 1]."""

    Config = GamesConfig
    task_type = GamesTask
    reward_range = (0.0, 1.0)
    in_thread = False
    config: GamesConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    task: GamesTask

    @classmethod
    def generate(cls, rng: Random, config: GamesConfig = DEFAULTS) -> GamesTask:
        game = config.id or rng.choice(config.games)
        return GamesTask(responses_create_params={"input": []}, game=game, seed=rng.getrandbits(31))

    def make_game(self) -> Any:
        if self.config.id:
            return super().make_game()
        if self.task.game not in GAMES:
            known = f"{did_you_mean(self.task.game, GAMES)} One of Gymnasium's is chosen by the setting `id`."
            raise InputError(f"Task {self.task.id} has the game {self.task.game!r}. {known}")
        return GAMES[self.task.game]()

    def rules(self) -> str:
        return super().rules() if self.config.id else self.game.rules

    def action_names(self) -> tuple[str, ...]:
        return tuple(super().action_names()) if self.config.id else self.game.action_names

    def verify(self, rollout: Rollout) -> Verdict:
        found = super().verify(rollout)
        low, high = self.config.total_range if self.config.id else (0.0, 1.0)
        share = min(1.0, max(0.0, (found.reward - low) / (high - low)))
        # Steps that pay thirds add up to nearly one.
        reward = 1.0 if math.isclose(share, 1.0, abs_tol=1e-9) else share
        return Verdict(reward, metrics={**found.metrics, "total": found.reward}, reason=found.reason)

    def solve(self) -> Generator[Turn, str, None]:
        if self.config.id:
            raise InputError(f"There is no gold policy for {self.config.id}; it is known for {', '.join(GAMES)}.")
        while not self.is_over:
            yield f"<action>{self.game.solution()}</action>"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Play anything that is allowed."""
        space = self.game.action_space
        if hasattr(space, "n"):
            choices = self.names or [str(space.start + number) for number in range(space.n)]
        else:
            choices = self.game.mistakes() if hasattr(self.game, "mistakes") else [f"{heap} 1" for heap in (1, 2, 3)]
        return f"<action>{rng.choice(list(choices))}</action>"
