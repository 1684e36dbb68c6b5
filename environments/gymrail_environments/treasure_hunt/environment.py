r"""Find the key of the right chest, then open it: two tool calls, the second needs the first one's output. Of the
quickstart.

One row:

    {"responses_create_params": {"input": "Open the \"red\" chest, not the \"blue\" one."},
     "color": "red", "decoy": "blue", "key": 4, "decoy_key": 8}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random

from gymrail import Environment, Rollout, Task, ToolError, Verdict, call, tool
from gymrail.environment import Call, Turn
from gymrail.rollout import ToolCall

COLORS = ("black", "blue", "gold", "green", "pink", "red", "silver", "white")
CALLS = 2


class TreasureHuntTask(Task):
    color: str
    key: int
    """Number of the right chest's key; only `find_key` tells it."""
    decoy: str
    decoy_key: int


class TreasureHunt(Environment[TreasureHuntTask]):
    """Open the chest that was asked for. The episode ends with the second call."""

    @classmethod
    def generate(cls, rng: Random) -> TreasureHuntTask:
        color, decoy = rng.sample(COLORS, 2)
        key, decoy_key = rng.sample(range(1, 10), 2)
        prompt = f'Open the "{color}" chest, not the "{decoy}" one.'
        return TreasureHuntTask.ask(prompt, color=color, decoy=decoy, key=key, decoy_key=decoy_key)

    def seed(self) -> None:
        self.keys = {self.task.color: self.task.key, self.task.decoy: self.task.decoy_key}
        self.calls = 0
        self.opened: list[str] = []

    @tool(read_only=True)
    def find_key(self, color: str) -> int:
        """Find the key number of a chest."""
        return self._key(color)

    @tool
    def open_chest(self, color: str, key: int) -> str:
        """Open a chest with its key."""
        if key != self._key(color):
            return "It stays shut."
        self.opened.append(color)
        return "It opens."

    def after_call(self, call: ToolCall) -> None:
        self.calls += 1
        self.done = self.calls >= CALLS

    def verify(self, rollout: Rollout) -> Verdict:
        names = [call.name for call in rollout.calls]
        if names != ["find_key", "open_chest"]:
            return Verdict(0.0, reason=f"the calls were {', '.join(names) or 'none'}; wanted find_key, open_chest")
        asked = rollout.calls[0].parsed.get("color")
        found_right_key = asked == self.task.color
        opened_right_chest = self.opened == [self.task.color]
        reason = None if found_right_key and opened_right_chest else f"asked for {asked!r}, opened {self.opened}"
        return Verdict(
            float(found_right_key and opened_right_chest), metrics={"found_right_key": found_right_key}, reason=reason
        )

    def solve(self) -> Generator[Turn, str, None]:
        key = yield call("find_key", color=self.task.color)
        yield call("open_chest", color=self.task.color, key=int(key) if key.isdigit() else 0)

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Fall for the decoy: ask for its key, or try the key on its chest."""
        return Call(turn.name, {**turn.arguments, "color": self.task.decoy}) if isinstance(turn, Call) else turn

    def _key(self, color: str) -> int:
        if color not in self.keys:
            raise ToolError(f"There is no {color} chest; there are: {', '.join(sorted(self.keys))}.")
        return self.keys[color]
