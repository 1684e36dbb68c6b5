"""What one episode may take. Past a deadline it is `failed(timeout)`; at a limit it is `truncated`, and judged.

    Limits(call_seconds=10, token_limit=50_000, tool_call_limit=20, cost_limit=0.05, prices=Prices(1.25, 10.0, 0.125))

A deadline is ours: something hung, and the rollout says nothing about the policy. A limit is the policy's budget: it is
looked at between steps, so the answer that crosses it is kept and that answer's tool calls are run, as at `max_steps`.
Two limits are never crossed: of the tool calls, those beyond the limit are not run and stand in the conversation
without an output; of the output tokens, each request asks for no more than what is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gymrail.errors import InputError
from gymrail.rollout import Reason, Usage

_PER_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """What a model's tokens cost: US dollars per million."""

    input: float
    output: float
    cached_input: float | None = None
    """Of input tokens that the endpoint had in its cache and says so; `input` by default."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"The price {name!r} is {value!r}; it is a number of US dollars per million tokens.")

    def cost(self, usage: Usage) -> float:
        """Return what tokens cost, in US dollars."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        dollars = (usage.input_tokens - cached) * self.input + cached * cached_price + usage.output_tokens * self.output
        return dollars / _PER_MILLION


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines of an episode and its parts, and limits that truncate it; a limit of None does not."""

    call_seconds: float = 60.0
    """One tool call, unless the tool has its own limit."""
    seed_seconds: float = 120.0
    verify_seconds: float = 300.0
    episode_seconds: float = 3600.0
    """From the opening to the verdict; past it the rollout is `failed(timeout)`."""
    idle_seconds: float = 900.0
    """Time to live: an episode that nobody touches for so long is expired, and is closed by its next use or its
    reaper."""
    token_limit: int | None = None
    """Input and output tokens, summed over the model calls: a conversation counts again with every call."""
    output_token_limit: int | None = None
    """Output tokens, summed over the model calls."""
    tool_call_limit: int | None = None
    """Tool calls; a call beyond it truncates, an answer in words after the last does not."""
    time_limit_seconds: float | None = None
    """Seconds since the opening after which no step begins. What a slow policy has reached is judged, where
    `episode_seconds` would make it a failure without a reward."""
    cost_limit: float | None = None
    """US dollars by `prices`."""
    prices: Prices | None = None
    """Makes rollouts have a `cost`."""

    def __post_init__(self) -> None:
        for name in ("token_limit", "output_token_limit", "tool_call_limit", "time_limit_seconds", "cost_limit"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value!r}; it must be above 0, or absent.")
        if self.cost_limit is not None and self.prices is None:
            raise InputError(f"cost_limit is {self.cost_limit!r}, and nothing has a price; give prices too.")

    @property
    def end_between_steps(self) -> bool:
        """Whether `reached` can say anything at all."""
        return (
            self.token_limit is not None
            or self.output_token_limit is not None
            or self.time_limit_seconds is not None
            or self.cost_limit is not None
        )

    def reached(self, usage: Usage, seconds: float) -> Reason | None:
        """Return the limit that an episode has reached, so that it takes no further step.

        Args:
            usage: of its model calls so far.
            seconds: since its opening.
        """
        if self.token_limit is not None and usage.input_tokens + usage.output_tokens >= self.token_limit:
            return "token_limit"
        if self.output_token_limit is not None and usage.output_tokens >= self.output_token_limit:
            return "output_token_limit"
        if self.time_limit_seconds is not None and seconds >= self.time_limit_seconds:
            return "time_limit"
        if self.cost_limit is not None and self.prices is not None and self.prices.cost(usage) >= self.cost_limit:
            return "cost_limit"
        return None


DEFAULT_LIMITS = Limits()
