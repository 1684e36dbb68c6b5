"""What a run has done so far, in a few numbers: for the progress display and for Prometheus, while rollouts arrive."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gymrail.collect.finished import Finished
from gymrail.collect.runner import Summary
from gymrail.tools import printable

if TYPE_CHECKING:
    from gymrail.models.pace import Load

RECENT_SECONDS = 30
"""What "now" means where a speed is shown."""
MAX_TOOLS = 200
"""Tools told apart per environment: a model may call tools that do not exist, under any number of names."""
OTHER_TOOLS = "(other)"


@dataclass(slots=True)
class ToolTally:
    """One tool's calls so far."""

    calls: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Tally:
    """What is known about one environment so far."""

    asked: int | None
    """None where nobody knows how many there will be."""
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    """By kind."""
    rewards: int = 0
    reward_sum: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    """Wall time of the episodes, added up."""
    cost: float | None = None
    """US dollars, those of the environment's own models included; None where there are no prices."""
    tools: dict[str, ToolTally] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        return self.outcomes.total()

    @property
    def mean_reward(self) -> float | None:
        return self.reward_sum / self.rewards if self.rewards else None

    def add(self, finished: Finished) -> None:
        """Count one rollout."""
        self.outcomes[finished.status] += 1
        if finished.failure is not None:
            self.failures[finished.failure] += 1
        if finished.reward is not None:
            self.rewards += 1
            self.reward_sum += finished.reward
        self.input_tokens += finished.usage.input_tokens
        self.output_tokens += finished.usage.output_tokens
        self.seconds += finished.seconds
        if finished.cost is not None or finished.environment_cost:
            self.cost = (self.cost or 0.0) + (finished.cost or 0.0) + finished.environment_cost
        for use in finished.tools:
            tool = self.tools.get(use.name)
            if tool is None:
                name = printable(use.name)
                tool = self.tools.setdefault(name if len(self.tools) < MAX_TOOLS else OTHER_TOOLS, ToolTally())
            tool.calls += use.calls
            tool.seconds += use.seconds


class Speed(NamedTuple):
    """Per second."""

    rollouts: float
    input_tokens: float
    output_tokens: float


class SlowestTool(NamedTuple):
    """The tool whose calls take longest on average."""

    name: str
    mean_seconds: float


@dataclass(slots=True)
class _Second:
    """What arrived within one second of the clock."""

    number: int
    rollouts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class RunCounts:
    """Counts finished rollouts; one thread adds, any thread reads."""

    def __init__(
        self,
        asked: Mapping[str, int | None],
        *,
        summary: Summary | None = None,
        loads: Callable[[], Mapping[str, Load]] = dict,
        concurrency: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            asked: rollouts by environment, in the order in which they are shown; those of an earlier run included.
            summary: the runner's own counts, which say what is being played and what was played again.
            loads: asks the model how busy its endpoints are, by address; empty where it does not know.
            concurrency: episodes that were asked for at once.
            clock: seconds, never going back.
        """
        self.tallies = {name: Tally(count) for name, count in asked.items()}
        self.summary = Summary() if summary is None else summary
        self.loads = loads
        self.concurrency = concurrency
        self.earlier = 0
        """Rollouts of an earlier, interrupted run: done, but not part of the speed."""
        self._clock = clock
        self._started = clock()
        self._seconds: deque[_Second] = deque(maxlen=RECENT_SECONDS + 1)

    def start(self) -> None:
        """Measure speeds from now on."""
        self._started = self._clock()

    def resume(self, finished: Iterable[Finished]) -> None:
        """Count the rollouts that an interrupted run left behind; those of other environments are not this run's."""
        for one in finished:
            tally = self.tallies.get(one.key.environment)
            if tally is not None:
                tally.add(one)
                self.earlier += 1

    def add(self, finished: Finished) -> None:
        """Count a rollout that is on disk."""
        self.tallies[finished.key.environment].add(finished)
        number = int(self._clock())
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(_Second(number))
        second = self._seconds[-1]
        second.rollouts += 1
        second.input_tokens += finished.usage.input_tokens
        second.output_tokens += finished.usage.output_tokens

    @property
    def asked(self) -> int | None:
        """None where any environment's number is not known."""
        total = 0
        for tally in self.tallies.values():
            if tally.asked is None:
                return None
            total += tally.asked
        return total

    @property
    def ended(self) -> int:
        return sum(tally.ended for tally in self.tallies.values())

    @property
    def in_flight(self) -> int:
        """Episodes that are being played; what waits at a worker is not."""
        given = max(0, self.summary.asked - self.summary.finished)
        return given if self.concurrency is None else min(given, self.concurrency)

    @property
    def elapsed_seconds(self) -> float:
        return self._clock() - self._started

    @property
    def mean_speed(self) -> float:
        """Rollouts per second since the start."""
        return (self.ended - self.earlier) / max(self.elapsed_seconds, 1e-9)

    @property
    def speed(self) -> Speed:
        """Of the last half minute."""
        now = self._clock()
        recent = [second for second in tuple(self._seconds) if second.number > now - RECENT_SECONDS]
        span = max(min(now - self._started, RECENT_SECONDS), 1e-9)
        return Speed(
            sum(second.rollouts for second in recent) / span,
            sum(second.input_tokens for second in recent) / span,
            sum(second.output_tokens for second in recent) / span,
        )

    @property
    def remaining_seconds(self) -> float | None:
        """By the mean speed; None where it, or the number that is asked for, is not known."""
        asked, ended = self.asked, self.ended
        if asked is None or ended <= self.earlier:
            return None
        return max(0, asked - ended) / self.mean_speed

    @property
    def cost(self) -> float | None:
        """US dollars so far; None where there are no prices."""
        costs = [tally.cost for tally in self.tallies.values() if tally.cost is not None]
        return sum(costs) if costs else None

    @property
    def slowest_tool(self) -> SlowestTool | None:
        means = [
            SlowestTool(name, tool.seconds / tool.calls)
            for tally in self.tallies.values()
            for name, tool in tuple(tally.tools.items())
            if tool.calls
        ]
        return max(means, key=lambda tool: tool.mean_seconds, default=None)
