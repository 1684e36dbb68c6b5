"""What a check of an environment found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gymrail.rollout import Rollout


class Check(NamedTuple):
    """One clause of the contract."""

    name: str
    passed: bool | None
    """None where it could not be checked; the detail says what to add."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks found; a clause that could not be checked is a warning, not a failure."""

    environment: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed is not False for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def warnings(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is None)


def check_of(name: str, problems: Sequence[str], detail: str = "") -> Check:
    """Build a check from its problems: the first is shown, the others are counted."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Check(name, not problems, problems[0] + more if problems else detail)


def place_of(rollout: Rollout) -> str:
    """Say which rollout it is."""
    return f"task {rollout.task_index} ({rollout.task.id}, {rollout.model or 'scripted'})"
