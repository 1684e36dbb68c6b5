"""What an environment's own models use up, its judges and simulated users, is charged to the episode that asked them.

    token = charge_to(rollout)         # `play` does
    try: ...                           # a judge calls charge(response.usage)
    finally: end_charging(token)

Counted is what is asked in the episode's own task and in those that it starts. A tool call or a verdict that another
program asks for over HTTP has no such task, and is charged to nobody.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gymrail.rollout import Rollout, Usage

_charged: ContextVar[Rollout | None] = ContextVar("gymrail_charged", default=None)


def charge_to(rollout: Rollout) -> Token[Rollout | None]:
    """Charge this rollout from here on, in this task and in those that it starts."""
    return _charged.set(rollout)


def end_charging(token: Token[Rollout | None]) -> None:
    """Charge again whom `charge_to` had found charged."""
    _charged.reset(token)


def charge(usage: Usage, dollars: float = 0.0) -> None:
    """Count one answer of an environment's own model; `dollars` is what it cost, where that is known."""
    rollout = _charged.get()
    if rollout is not None:
        rollout.environment_usage = rollout.environment_usage.plus(usage)
        rollout.environment_cost += dollars
