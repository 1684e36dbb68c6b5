"""What a whole run may take: tokens, tool calls, money, wall time. When it is used up, the run drains.

    spending = Spending(Budget(cost=20.0, seconds=7200), drain, prices)
    spending.resume(run.finished())              # what an interrupted run has spent counts
    with spending.clock():                       # on the event loop
        await collect(jobs, model, on_rollout=lambda rollout: spending.add(finished_of(rollout)), drain=drain)
    spending.used_up                             # the budget that ended the run, or None

A budget is looked at when a rollout is on disk, so what is in flight then is finished and may go beyond it. Judges and
simulated users count with the rollout that asked them: their tokens, and dollars where they have prices of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from gymrail.collect.drain import Drain
from gymrail.collect.finished import Finished
from gymrail.errors import InputError
from gymrail.limits import Prices

BudgetName = Literal["tokens", "tool_calls", "cost", "seconds"]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run may take; None is no bound."""

    tokens: int | None = None
    """Input and output tokens, those of failed attempts, judges and simulated users too."""
    tool_calls: int | None = None
    """Of the recorded attempts."""
    cost: float | None = None
    """US dollars."""
    seconds: float | None = None
    """Wall time since this start of the run; what it took before a resume does not count."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"The run's budget of {name} is {value!r}; it must be above 0, or absent.")


class Spending:
    """Adds up what a run takes, and asks it to end when a part of its budget is used up."""

    def __init__(self, budget: Budget, drain: Drain, prices: Prices | None = None) -> None:
        """
        Args:
            prices: for rollouts that were played without any, before a resume.
        """
        if budget.cost is not None and prices is None:
            raise InputError(f"The run's budget of cost is {budget.cost!r}, and nothing has a price; give prices too.")
        self.budget = budget
        self.tokens = 0
        self.tool_calls = 0
        self.used_up: BudgetName | None = None
        self._prices = prices
        self._drain = drain
        self._cost = _Sum()

    @property
    def cost(self) -> float:
        """US dollars."""
        return self._cost.value

    def resume(self, finished: Iterable[Finished]) -> None:
        """Count what the run has spent before; ask for its end where that is all it may."""
        for _ in self.counting(finished):
            pass
        self._look()

    def counting(self, finished: Iterable[Finished]) -> Iterator[Finished]:
        """Yield what the run has done before, and count it on the way; `resume` with the rest, or nothing, comes
        after."""
        for one in finished:
            self._count(one)
            yield one

    def add(self, finished: Finished) -> None:
        """Count a rollout that is on disk."""
        self._count(finished)
        self._look()

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        """Let the budget of wall time run while the block does; enter it on the run's event loop."""
        if self.budget.seconds is None:
            yield
            return
        timer = asyncio.get_running_loop().call_later(self.budget.seconds, self._end, "seconds")
        try:
            yield
        finally:
            timer.cancel()

    def _count(self, finished: Finished) -> None:
        usage, cost = finished.usage, finished.cost
        self.tokens += usage.input_tokens + usage.output_tokens + finished.other_tokens
        self.tool_calls += sum(tool.calls for tool in finished.tools)
        if cost is None and self._prices is not None:
            cost = self._prices.cost(usage)
        self._cost.add((cost or 0.0) + finished.environment_cost)

    def _look(self) -> None:
        budget = self.budget
        if budget.tokens is not None and self.tokens >= budget.tokens:
            self._end("tokens")
        elif budget.tool_calls is not None and self.tool_calls >= budget.tool_calls:
            self._end("tool_calls")
        elif budget.cost is not None and self.cost >= budget.cost:
            self._end("cost")

    def _end(self, name: BudgetName) -> None:
        if self.used_up is None and not self._drain.is_requested:
            self.used_up = name
            self._drain.request(f"the run's budget of {name} is used up")


class _Sum:
    """A sum that millions of small addends do not round away (Neumaier's)."""

    __slots__ = ("_lost", "_total")

    def __init__(self) -> None:
        self._total = self._lost = 0.0

    def add(self, value: float) -> None:
        total = self._total + value
        if abs(self._total) >= abs(value):
            self._lost += (self._total - total) + value
        else:
            self._lost += (value - total) + self._total
        self._total = total

    @property
    def value(self) -> float:
        return self._total + self._lost
