"""Progress of a run on stderr: a live bar in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from gymrail.rollout import Rollout

PLAIN_SECONDS = 5.0
"""Between two plain lines."""


@dataclass(slots=True)
class Tally:
    """What is known about one environment so far."""

    asked: int
    outcomes: Counter[str] = field(default_factory=Counter)
    rewards: int = 0
    reward_sum: float = 0.0

    @property
    def ended(self) -> int:
        return self.outcomes.total()

    @property
    def mean_reward(self) -> float | None:
        return self.reward_sum / self.rewards if self.rewards else None

    def add(self, status: str, reward: float | None) -> None:
        self.outcomes[status] += 1
        if reward is not None:
            self.rewards += 1
            self.reward_sum += reward


class Progress:
    """Counts rollouts and shows them while its `async with` block runs."""

    def __init__(self, asked: dict[str, int], console: Console) -> None:
        self.tallies = {name: Tally(count) for name, count in asked.items()}
        self.console = console
        self.earlier = 0
        """Rollouts of an earlier, interrupted run: done, but not part of the speed."""
        self._started = time.monotonic()
        self._plain: asyncio.Task[None] | None = None

    def resume(self, rollouts: Iterable[Rollout]) -> None:
        """Count the rollouts that an interrupted run left behind."""
        for rollout in rollouts:
            if rollout.environment in self.tallies:
                self.add(rollout)
                self.earlier += 1

    def add(self, rollout: Rollout) -> None:
        assert rollout.outcome is not None
        self.tallies[rollout.environment].add(rollout.outcome.status, rollout.reward)

    async def __aenter__(self) -> Self:
        self._started = time.monotonic()
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(get_renderable=self.render, console=self.console, refresh_per_second=5, transient=True)
            self._live.start()
        else:
            self._plain = asyncio.create_task(self._print_lines())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._plain is not None:
            self._plain.cancel()
            self.console.print(self.line(), markup=False, soft_wrap=True)
        else:
            self._live.stop()

    @property
    def asked(self) -> int:
        return sum(tally.asked for tally in self.tallies.values())

    @property
    def ended(self) -> int:
        return sum(tally.ended for tally in self.tallies.values())

    @property
    def rate(self) -> float:
        """Rollouts per second since the start."""
        return (self.ended - self.earlier) / max(time.monotonic() - self._started, 1e-9)

    @property
    def remaining_seconds(self) -> float | None:
        return (self.asked - self.ended) / self.rate if self.ended > self.earlier else None

    def line(self) -> str:
        """The whole progress in one line."""
        parts = [f"{self.ended}/{self.asked} rollouts", f"{self.rate:.1f}/s"]
        parts += [
            f"{name} reward {_reward(tally)}{_outcomes(tally)}" for name, tally in self.tallies.items() if tally.ended
        ]
        if self.remaining_seconds is not None and self.ended < self.asked:
            parts.append(f"{_clock(self.remaining_seconds)} left")
        return ", ".join(parts)

    def render(self) -> RenderableType:
        """The live display: a bar, and below it a line per environment."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 2))
        left = "-" if self.remaining_seconds is None else _clock(self.remaining_seconds)
        bar.add_row(
            ProgressBar(total=max(self.asked, 1), completed=self.ended, width=30),
            Text(f"{self.ended}/{self.asked}", "bold"),
            Text(f"{self.rate:.1f} rollouts/s"),
            Text(f"{_clock(time.monotonic() - self._started)} gone, {left} left", "dim"),
        )
        rows = Table.grid(padding=(0, 2))
        for name, tally in self.tallies.items():
            rows.add_row(
                Text(name, "cyan"),
                Text(f"{tally.ended}/{tally.asked}"),
                Text(f"reward {_reward(tally)}", "bold"),
                Text(_outcomes(tally).strip(" ()"), "red" if tally.outcomes["failed"] else "dim"),
            )
        return Group(bar, rows)

    async def _print_lines(self) -> None:
        while True:
            await asyncio.sleep(PLAIN_SECONDS)
            self.console.print(self.line(), markup=False, soft_wrap=True)


def _reward(tally: Tally) -> str:
    return "-" if tally.mean_reward is None else f"{tally.mean_reward:.3f}"


def _outcomes(tally: Tally) -> str:
    counts = [
        f"{tally.outcomes[status]} {status}"
        for status in ("truncated", "failed", "cancelled")
        if tally.outcomes[status]
    ]
    return f" ({', '.join(counts)})" if counts else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
