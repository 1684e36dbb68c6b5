from collections.abc import Generator
from typing import Any

import gymnasium
from gymnasium import spaces

from gymrail.bridges.gymnasium import GymnasiumEnvironment


class CorridorGame(gymnasium.Env[int, int]):
    action_space = spaces.Discrete(2)
    observation_space = spaces.Discrete(9)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(1, 4))
        return self.place, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.place += 1 if action == 1 else -1
        is_over = self.place in (0, 5)
        return self.place, float(self.place == 5), is_over, False, {}


class Corridor(GymnasiumEnvironment):
    """Walk to the door at the end of a corridor."""

    reward_range = (0.0, 1.0)

    def make_game(self) -> CorridorGame:
        return CorridorGame()

    def action_names(self) -> tuple[str, ...]:
        return ("back", "on")

    def rules(self) -> str:
        return "You are in a corridor. The door is at 5, a pit at 0. The number is where you are."

    def solve(self) -> Generator[str, Any, None]:
        for _ in range(5 - self.game.place):
            yield "<action>on</action>"
