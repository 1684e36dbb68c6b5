"""Progress of a run on stderr: a live display in a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gymrail.collect.counts import RunCounts, Tally
from gymrail.models.pace import total_load

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from gymrail.collect.finished import Finished
    from gymrail.collect.runner import Summary
    from gymrail.models.pace import Load

PLAIN_SECONDS = 5.0
"""Between two plain lines, at first."""
MAX_PLAIN_SECONDS = 60.0
"""Later on: the log of a long run is read too."""
SHOWN = 8
"""Environments that have a row of their own."""
_SLOW_TOOL_SECONDS = 0.001
"""Below it no tool is slow."""
_REFRESHES = 4
"""Per second."""
_BAR_COLUMNS = 30
_MIN_BAR_COLUMNS = 8
_MIN_NAME_COLUMNS = 12
_MAX_TOOL_COLUMNS = 32


class Progress:
    """Counts rollouts and shows them while its `async with` block runs."""

    def __init__(
        self,
        asked: Mapping[str, int | None],
        console: Console,
        *,
        summary: Summary | None = None,
        loads: Callable[[], Mapping[str, Load]] = dict,
        concurrency: int | None = None,
    ) -> None:
        """
        Args:
            asked: rollouts by environment; None where nobody knows how many there will be.
            summary: the runner's counts: what is in flight, and what was played again.
            loads: asks the model how busy its endpoints are; shown where they take less than `concurrency`.
            concurrency: episodes that were asked for at once.
        """
        self.counts = RunCounts(asked, summary=summary, loads=loads, concurrency=concurrency)
        self.console = console
        self._plain: asyncio.Task[None] | None = None
        self._live: Live | None = None
        self._seconds: float | None = None
        """How long it took, once it is over."""

    def resume(self, finished: Iterable[Finished]) -> None:
        """Count the rollouts that an interrupted run left behind."""
        self.counts.resume(finished)

    def add(self, finished: Finished) -> None:
        """Count a rollout that is on disk."""
        self.counts.add(finished)

    @property
    def asked(self) -> int | None:
        return self.counts.asked

    @property
    def ended(self) -> int:
        return self.counts.ended

    @property
    def share(self) -> str:
        """How much of the run is done: "3 of 6 rollouts", or "3 rollouts" where nobody knows of how many."""
        return f"{self.ended} rollouts" if self.asked is None else f"{self.ended} of {self.asked} rollouts"

    @property
    def effort(self) -> str | None:
        """What this start of the run took, in one sentence; None where it played nothing."""
        counts = self.counts
        played = self.ended - counts.earlier
        if not played or self._seconds is None:
            return None
        tallies = counts.tallies.values()
        took = _clock(self._seconds) if self._seconds >= 60 else f"{self._seconds:.1f} s"
        parts = [f"Played {played} rollouts in {took} ({_per(played / max(self._seconds, 1e-9))})"]
        tokens = [sum(tally.input_tokens for tally in tallies), sum(tally.output_tokens for tally in tallies)]
        if any(tokens):
            parts.append(f"{_short(tokens[0])} tokens in, {_short(tokens[1])} out")
        if counts.cost is not None:
            parts.append(f"${counts.cost:.2f}")
        earlier = f" {counts.earlier} are of an earlier start, tokens and all." if counts.earlier else ""
        return f"{'; '.join(parts)}.{earlier}"

    async def __aenter__(self) -> Self:
        self.counts.start()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self.render, console=self.console, refresh_per_second=_REFRESHES, transient=True,
                vertical_overflow="crop",
            )  # fmt: skip
            self._live.start()
        else:
            self._plain = asyncio.create_task(self._print_lines())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seconds = self.counts.elapsed_seconds
        if self._live is not None:
            self._live.stop()
        if self._plain is not None:
            self._plain.cancel()
            self._print_line()

    def line(self) -> str:
        """The whole progress in one line."""
        counts = self.counts
        facts = [f"{_of(counts.ended, counts.asked)} rollouts", f"{_per(counts.speed.rollouts)}"]
        facts[1] += f" (mean {_per(counts.mean_speed)})"
        facts += _times(counts)
        facts += self._facts()
        rows = [_row(name, tally) for name, tally in _chosen(counts.tallies).items() if tally.ended]
        rest = _rest(counts.tallies)
        if rest is not None:
            rows.append(rest)
        shown = [
            f"{row.name} {row.count} {row.reward}" + (f" ({', '.join(row.outcomes)})" if row.outcomes else "")
            for row in rows
        ]
        return "; ".join([", ".join(facts), *shown])

    def render(self) -> Group:
        """The live display: a bar, the run's facts, and a row per environment; no line is wider than the terminal."""
        from rich.console import Group

        # The last column stays free: terminals wrap a line that fills it.
        width = self.console.width - 1
        counts = self.counts
        facts = self._facts()
        # The bar, a line for the kinds of failures, one for the rest, and one free below.
        most = max(1, min(SHOWN, self.console.height - len(_packed(facts, width)) - 4))
        rows = [_row(name, tally) for name, tally in _chosen(counts.tallies, most).items()]
        rest = _rest(counts.tallies, most)
        if rest is not None:
            rows.append(rest)
        columns, are_short = _fit(rows, width)
        if are_short and (failures := _failures_of_all(counts)):
            facts.append(failures)
        return Group(self._head(width), *(_cut(line, width, "dim") for line in _packed(facts, width)), *columns)

    def _head(self, width: int) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        counts = self.counts
        texts = [
            Text(_of(counts.ended, counts.asked), "bold"),
            Text(_per(counts.speed.rollouts)),
            Text(f"mean {_per(counts.mean_speed)}", "dim"),
            Text(", ".join(_times(counts)), "dim"),
        ]
        while len(texts) > 1 and sum(len(text) + 2 for text in texts) - 2 > width:
            texts.pop(2 if len(texts) > 3 else -1)
        taken = sum(len(text) + 2 for text in texts)
        grid = Table.grid(padding=(0, 2))
        room = min(_BAR_COLUMNS, width - taken)
        if counts.asked is None or room < _MIN_BAR_COLUMNS:
            grid.add_row(*texts)
        else:
            grid.add_row(ProgressBar(total=max(counts.asked, 1), completed=counts.ended, width=room), *texts)
        return Group(grid)

    def _facts(self) -> list[str]:
        """What is said about the run as a whole, the most urgent first; nothing where there is nothing to say."""
        counts = self.counts
        facts: list[str] = []
        if counts.in_flight:
            facts.append(f"{counts.in_flight} in flight")
        loads = counts.loads().values()
        if loads and counts.concurrency is not None:
            who = "endpoint takes" if len(loads) == 1 else f"{len(loads)} endpoints take"
            limit, waiting, _ = total_load(loads)
            if limit < counts.concurrency:
                facts.append(f"{who} {limit} of {counts.concurrency} at once, {waiting} waiting")
        if counts.summary.retried:
            facts.append(f"{counts.summary.retried} retried")
        speed = counts.speed
        if speed.input_tokens or speed.output_tokens:
            facts.append(f"tokens/s {_short(speed.input_tokens)} in {_short(speed.output_tokens)} out")
        if counts.cost is not None:
            facts.append(f"${counts.cost:.2f} so far")
        slowest = counts.slowest_tool
        if slowest is not None and slowest.mean_seconds >= _SLOW_TOOL_SECONDS:
            facts.append(f"slowest tool {_printable(slowest.name)} {_seconds(slowest.mean_seconds)}")
        return facts

    async def _print_lines(self) -> None:
        while True:
            await asyncio.sleep(plain_pause(self.counts.elapsed_seconds))
            self._print_line()

    def _print_line(self) -> None:
        self.console.print(self.line(), markup=False, soft_wrap=True)


def plain_pause(elapsed_seconds: float) -> float:
    """Return the seconds until the next plain line: a twelfth of the run so far, within the two limits."""
    return min(max(elapsed_seconds / 12, PLAIN_SECONDS), MAX_PLAIN_SECONDS)


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    count: str
    reward: str
    outcomes: list[str]
    """What did not end as scored, each with its number; failures by kind."""
    short: list[str]
    """The same without the kinds."""
    has_failed: bool


def _row(name: str, tally: Tally) -> _Row:
    short = [f"{status} {tally.outcomes[status]}" for status in ("failed", "truncated", "cancelled")]
    short = [text for text in short if not text.endswith(" 0")]
    kinds = f" ({_kinds(tally.failures)})"
    outcomes = [text + kinds if text.startswith("failed") and tally.failures else text for text in short]
    reward = "-" if tally.mean_reward is None else f"{tally.mean_reward:.3f}"
    count = _of(tally.ended, tally.asked)
    return _Row(_printable(name, len(name)), count, f"reward {reward}", outcomes, short, tally.outcomes["failed"] > 0)


def _chosen(tallies: Mapping[str, Tally], most: int = SHOWN) -> dict[str, Tally]:
    """Return the environments that have a row, in their order: all of them, or those that failed most and the first."""
    if len(tallies) <= most:
        return dict(tallies)
    # By the order of magnitude of the failures, so that the rows do not change places with every one.
    ranked = sorted(tallies, key=lambda name: -tallies[name].outcomes["failed"].bit_length())[:most]
    return {name: tally for name, tally in tallies.items() if name in ranked}


def _rest(tallies: Mapping[str, Tally], most: int = SHOWN) -> _Row | None:
    """Sum up the environments that have no row."""
    chosen = _chosen(tallies, most)
    if len(chosen) == len(tallies):
        return None
    total = Tally(0)
    for name, tally in tallies.items():
        if name in chosen:
            continue
        total.asked = None if total.asked is None or tally.asked is None else total.asked + tally.asked
        total.outcomes.update(tally.outcomes)
        total.failures.update(tally.failures)
        total.rewards += tally.rewards
        total.reward_sum += tally.reward_sum
    return _row(f"and {len(tallies) - len(chosen)} more", total)


def _fit(rows: list[_Row], width: int) -> tuple[list[Text], bool]:
    """Return the rows as lines of at most `width` columns, and whether failures had to go without their kinds."""
    from rich.text import Text

    counts = max(len(row.count) for row in rows)
    rewards = max(len(row.reward) for row in rows)
    longest = max(len(row.name) for row in rows)
    left = width - counts - rewards - 6
    full = max(len(", ".join(row.outcomes)) for row in rows)
    short = max(len(", ".join(row.short)) for row in rows)
    are_short = left - full < min(longest, _MIN_NAME_COLUMNS)
    names = max(min(longest, left - (short if are_short else full)), min(longest, _MIN_NAME_COLUMNS))
    lines = []
    for row in rows:
        text = Text(_shortened(row.name, names).ljust(names) + "  ", "cyan")
        text.append(row.count.rjust(counts) + "  ", "none")
        text.append(row.reward.ljust(rewards) + "  ", "bold")
        text.append(", ".join(row.short if are_short else row.outcomes), "red" if row.has_failed else "dim")
        lines.append(_cut(text, width))
    return lines, are_short


def _cut(line: str | Text, width: int, style: str = "") -> Text:
    from rich.text import Text

    text = Text(line, style) if isinstance(line, str) else line
    text.no_wrap = True
    text.rstrip()
    text.truncate(width, overflow="ellipsis")
    return text


def _packed(facts: list[str], width: int) -> list[str]:
    """Put facts into as few lines as there is room for."""
    lines: list[str] = []
    for fact in facts:
        if lines and len(lines[-1]) + 2 + len(fact) <= width:
            lines[-1] += f", {fact}"
        else:
            lines.append(fact)
    return lines


def _failures_of_all(counts: RunCounts) -> str:
    failures: Counter[str] = Counter()
    for tally in counts.tallies.values():
        failures.update(tally.failures)
    return f"failed {failures.total()} ({_kinds(failures)})" if failures else ""


def _kinds(failures: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in failures.most_common())


def _times(counts: RunCounts) -> list[str]:
    times = [f"{_clock(counts.elapsed_seconds)} gone"]
    left = counts.remaining_seconds
    if left is not None and counts.asked != counts.ended:
        times.append(f"{_clock(left)} left")
    return times


def _of(ended: int, asked: int | None) -> str:
    return str(ended) if asked is None else f"{ended}/{asked}"


def _per(rollouts_per_second: float) -> str:
    """A speed in a unit in which it is no fraction."""
    for unit, factor in (("s", 1), ("min", 60)):
        if rollouts_per_second * factor >= 1:
            return f"{rollouts_per_second * factor:.1f}/{unit}"
    return f"{rollouts_per_second * 3600:.0f}/h" if rollouts_per_second else "0/s"


def _short(number: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return f"{number:.0f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.2g} ms"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _printable(name: str, columns: int = _MAX_TOOL_COLUMNS) -> str:
    """A name that a model may have made up, without what a terminal would obey."""
    return _shortened("".join(letter if letter.isprintable() else "?" for letter in name), columns)


def _shortened(text: str, columns: int) -> str:
    """Cut the middle out: names of a family differ at one of the ends."""
    head = (columns - 1) // 2
    return text if len(text) <= columns else f"{text[:head]}…{text[len(text) - (columns - 1 - head) :]}"
