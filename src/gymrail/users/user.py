"""The seam between an environment and whoever plays its user; one instance plays one episode.

    async def reply(self, rollout: Rollout) -> str | None:
        turn = await self.user.respond(rollout.items)
        self.ended = turn.ends
        return None if turn.ends else turn.text

How a user is played is never the agent's doing: what breaks there raises `SimulatorError`, and the rollout is `failed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gymrail.errors import InfrastructureError
from gymrail.task import Item


class SimulatorError(InfrastructureError):
    """A simulated user or tool is down, or plays what is no part of its role: the rollout fails as `infrastructure`, is
    played again where attempts are left, and is never scored."""


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the user says to the agent's last message."""

    text: str
    ends: bool = False
    """The talk is over: the agent has no turn after this one."""


class User(Protocol):
    """Plays the user of one episode.

    Raises:
        SimulatorError: whoever plays the user is at fault.
    """

    async def respond(self, items: Sequence[Item]) -> UserTurn:
        """Answer the agent's last message; `items` is the talk so far, the opening included or not."""
        ...
