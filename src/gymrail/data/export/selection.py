"""Which rollouts become training rows: what one rollout is asked by itself, and what it is asked beside others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

from gymrail.data.export.record import JUDGED, Record
from gymrail.errors import InputError, did_you_mean

Balance = Literal["environment", "task"]
Dedup = Literal["exact", "near"]


@dataclass(frozen=True)
class Selection:
    """What is kept. The filters stand in the order in which they are asked; a rollout counts for the first that removes
    it."""

    environments: tuple[str, ...] = ()
    """Names; all by default."""
    outcomes: tuple[str, ...] = JUDGED
    min_reward: float | None = None
    max_reward: float | None = None
    no_tool_errors: bool = False
    """Leave out rollouts in which a tool told the model that its call cannot be done."""
    min_steps: int | None = None
    max_steps: int | None = None
    """Model calls."""
    max_messages: int | None = None
    """Chat messages, the prompt's included."""
    max_tokens: int | None = None
    """Tokens of the longest model call with its prompt; needs rollouts that carry token ids."""
    benchmarks: tuple[str, ...] = ()
    """JSONL files; tasks that share 13 words in a row with one of them are left out, as `gymrail data split` finds
    them."""
    dedup: Dedup | None = None
    """`exact`: what was said is the same. `near`: the texts' five-word shingles are as alike as `near_threshold`. The
    first in the files' order is kept."""
    near_threshold: float = 0.8
    best_of: int | None = None
    """The best so many of each task; the shorter of equally good ones."""
    top_share: float | None = None
    """This share of each task's rollouts, rounded up, best first."""
    max_per_task: int | None = None
    """At most so many of each task, drawn by chance."""
    balance: Balance | None = None
    """As many of each environment, or of each task, as the one with the fewest has, drawn by chance."""
    seed: int = 0
    """For what is drawn by chance."""

    def __post_init__(self) -> None:
        for name, values, allowed in (
            ("outcomes", self.outcomes, JUDGED),
            ("balance", [self.balance] if self.balance else [], ("environment", "task")),
            ("dedup", [self.dedup] if self.dedup else [], ("exact", "near")),
        ):
            for value in values:
                if value not in allowed:
                    raise InputError(f"{name} is {value!r}. {did_you_mean(value, allowed)}")
        for name in ("best_of", "max_per_task", "max_steps", "max_messages", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value!r}; it must be at least 1.")
        for name in ("top_share", "near_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"{name} is {value!r}; it must be above 0 and at most 1.")
        if self.dedup != "near" and self.near_threshold != Selection.near_threshold:
            raise InputError(
                f"near_threshold is {self.near_threshold!r}, and dedup is {self.dedup!r}; it goes with dedup='near'."
            )
        for low, high in (("min_reward", "max_reward"), ("min_steps", "max_steps")):
            a, b = getattr(self, low), getattr(self, high)
            if a is not None and b is not None and not a <= b:
                raise InputError(f"{low} is {a!r} and {high} is {b!r}; nothing lies between them.")
        for name in ("min_reward", "max_reward"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"{name} is {value!r}; it must be a finite number.")

    @property
    def compares(self) -> bool:
        """Whether a rollout's place among others decides, so that all must be read before one is written."""
        return any((self.dedup, self.best_of, self.top_share, self.max_per_task, self.balance))

    @property
    def set_options(self) -> dict[str, Any]:
        """What differs from the defaults."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {option.name: values[option.name] for option in fields(self) if values[option.name] != option.default}

    def removed_by(self, record: Record) -> str | None:
        """The name of the filter that leaves a rollout out; None where it passes all that ask it alone.

        Raises:
            InputError: `max_tokens` asks a rollout that carries no token ids.
        """
        if self.environments and record.environment not in self.environments:
            return f"environment is not {' or '.join(self.environments)}"
        if not record.is_judged:
            return "failed or cancelled"
        if record.status not in self.outcomes:
            return f"outcome is not {' or '.join(self.outcomes)}"
        reward = record.earned
        if self.min_reward is not None and reward < self.min_reward:
            return f"reward below {self.min_reward:g}"
        if self.max_reward is not None and reward > self.max_reward:
            return f"reward above {self.max_reward:g}"
        if not record.spoke:
            return "the model never spoke"
        if self.no_tool_errors and record.has_tool_errors:
            return "tool errors"
        return self._too_long(record)

    def _too_long(self, record: Record) -> str | None:
        if self.min_steps is not None and record.steps < self.min_steps:
            return f"fewer than {self.min_steps} steps"
        if self.max_steps is not None and record.steps > self.max_steps:
            return f"more than {self.max_steps} steps"
        if self.max_messages is not None and len(record.messages()) > self.max_messages:
            return f"more than {self.max_messages} messages"
        if self.max_tokens is not None:
            length = record.length_in_tokens
            if length is None:
                raise record.bad(
                    f"rollout {record.id} carries no token ids, so max_tokens={self.max_tokens} cannot be asked; "
                    "use max_messages, or collect with a model that gives token ids"
                )
            if length > self.max_tokens:
                return f"more than {self.max_tokens} tokens"
        return None


def refuse(selection: Selection, names: Iterable[str], why: str) -> None:
    """Refuse filters that a kind of export cannot have.

    Raises:
        InputError: naming the first one that is set.
    """
    for name in names:
        if name in selection.set_options:
            raise InputError(f"{name} does not go with this export: {why}.")
