"""Chests with three locks, as an Aviary data set: written against `fhaviary` alone, it runs in Aviary's own agents too.

environment = LockDataset().get_new_env_by_idx(3)
observations, tools = await environment.reset()
"""

from __future__ import annotations

import functools
from pathlib import Path
from random import Random
from typing import Any

import yaml
from aviary.core import Environment, FunctionInfo, Message, Messages, TaskDataset, Tool, ToolRequestMessage

TEXTS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "data/chest.yaml").read_text(encoding="utf-8"))
REWARDS = (0.25, 0.25, 0.5)
"""For each lock that opens; they sum up to 1 exactly."""
MAX_WRONG = 2
SIZE = 20_000


class LockEnv(Environment[None]):
    """One chest: each lock's code follows from its note, and a later note refers to an earlier code."""

    def __init__(self, number: int) -> None:
        rng = Random(f"locks:{number}")
        self.number, self.state = number, None
        self.colors: list[str] = rng.sample(TEXTS["colors"], len(REWARDS))
        base, factor, more, less = (rng.randint(12, 60), rng.randint(3, 9), rng.randint(11, 99), rng.randint(2, 9))
        first, second = base * factor, base * factor + more
        self.codes = dict(zip(self.colors, (first, second, second - first // less), strict=True))
        notes = (note.format(*self.colors, factor=factor, base=base, more=more, less=less) for note in TEXTS["notes"])
        self.notes = dict(zip(self.colors, notes, strict=True))
        self.opened, self.wrong = list[str](), 0

    @property
    def is_over(self) -> bool:
        return self.wrong > MAX_WRONG or len(self.opened) == len(self.colors)

    async def reset(self) -> tuple[Messages, list[Tool]]:
        self.opened, self.wrong = [], 0
        self.tools = [Tool(tool_fn=getattr(self, about.name), info=about) for about in _descriptions()]
        text = TEXTS["prompt"].format(places=", ".join(sorted(self.colors)), max_wrong=MAX_WRONG)
        return [Message(content=text)], self.tools

    async def step(self, action: Message) -> tuple[Messages, float, bool, bool]:
        if not isinstance(action, ToolRequestMessage) or not action.tool_calls:
            return self.default_no_tool_calls_response
        before = len(self.opened)
        answers = await self.exec_tool_calls(action, concurrency=False)
        return [*answers], sum(REWARDS[before : len(self.opened)]), self.is_over, False

    async def read_note(self, color: str) -> str:
        """Read the note on a lock.

        Args:
            color: The lock's colour.
        """
        return self.notes.get(color, f"There is no {color} lock.")

    async def open_lock(self, color: str, code: int) -> str:
        """Try a code on a lock.

        Args:
            color: The lock's colour.
            code: The code to enter.
        """
        if self.is_over:
            return "Nothing can be opened any more."
        if color not in self.codes:
            return f"There is no {color} lock."
        if color in self.opened:
            return "That lock is open."
        if self.codes[color] == code:
            self.opened.append(color)
            return "The lock opens." if not self.is_over else "The chest is open."
        self.wrong += 1
        return "Wrong code, and the chest breaks." if self.is_over else "Wrong code."


@functools.cache
def _descriptions() -> list[FunctionInfo]:
    """What the tools say of themselves; Aviary takes milliseconds to read it from a function."""
    return [Tool.from_function(getattr(LockEnv(0), name)).info for name in ("read_note", "open_lock")]


class LockDataset(TaskDataset[LockEnv]):
    """`SIZE` chests, equal on every machine."""

    def __len__(self) -> int:
        return SIZE

    def get_new_env_by_idx(self, idx: int) -> LockEnv:
        return LockEnv(idx)
