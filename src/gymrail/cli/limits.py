"""Limits of an episode, budgets of a run, and prices: how the command line says them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from gymrail.cli.progress import Progress
    from gymrail.collect.budget import Budget, Spending
    from gymrail.collect.drain import Drain
    from gymrail.limits import Limits, Prices

UNFINISHED = 3
"""Exit code of a run that its budget ended."""

TokenLimit = Annotated[
    str | None,
    typer.Option("--token-limit", metavar="N", help="Input and output tokens per episode; past it: truncated."),
]
OutputTokenLimit = Annotated[
    str | None, typer.Option("--output-token-limit", metavar="N", help="Output tokens per episode.")
]
ToolCallLimit = Annotated[str | None, typer.Option("--tool-call-limit", metavar="N", help="Tool calls per episode.")]
TimeLimit = Annotated[
    str | None,
    typer.Option("--time-limit", metavar="TIME", help="Time after which an episode takes no further step: 90s, 10m."),
]
Deadline = Annotated[
    str | None,
    typer.Option("--deadline", metavar="TIME", help="Time after which an episode that is not over has failed; 1h."),
]
CostLimit = Annotated[
    str | None, typer.Option("--cost-limit", metavar="USD", help="US dollars per episode, by --price.")
]
Price = Annotated[
    str | None,
    typer.Option(
        "--price", metavar="IN,OUT[,CACHED]",
        help="US dollars per million input, output and cached input tokens; every rollout then has its cost.",
    ),
]  # fmt: skip
BudgetTokens = Annotated[
    str | None, typer.Option("--budget-tokens", metavar="N", help="Tokens that the whole run may take, such as 10M.")
]
BudgetToolCalls = Annotated[
    str | None, typer.Option("--budget-tool-calls", metavar="N", help="Tool calls that the whole run may take.")
]
BudgetCost = Annotated[
    str | None, typer.Option("--budget-cost", metavar="USD", help="US dollars that the whole run may take, by --price.")
]
BudgetTime = Annotated[
    str | None, typer.Option("--budget-time", metavar="TIME", help="Wall time after which no episode is begun: 2h.")
]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_COUNT = re.compile(r"(\d[\d_,]*(?:\.\d+)?)([kmbg]?)", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """The words of the command line; `limits` and `budget` read them."""

    token_limit: str | None = None
    output_token_limit: str | None = None
    tool_call_limit: str | None = None
    time_limit: str | None = None
    cost_limit: str | None = None
    price: str | None = None
    budget_tokens: str | None = None
    budget_tool_calls: str | None = None
    budget_cost: str | None = None
    budget_time: str | None = None
    deadline: str | None = None

    def limits(self) -> Limits:
        """What one episode may take.

        Raises:
            InputError: a word that is no such quantity, or a cost without a price.
        """
        from gymrail.limits import DEFAULT_LIMITS, Limits

        return Limits(
            episode_seconds=self._read("deadline", parse_seconds) or DEFAULT_LIMITS.episode_seconds,
            token_limit=self._read("token_limit", parse_count),
            output_token_limit=self._read("output_token_limit", parse_count),
            tool_call_limit=self._read("tool_call_limit", parse_count),
            time_limit_seconds=self._read("time_limit", parse_seconds),
            cost_limit=self._read("cost_limit", parse_dollars),
            prices=self.prices(),
        )

    def budget(self) -> Budget:
        """What the run may take.

        Raises:
            InputError: as `limits`.
        """
        from gymrail.collect.budget import Budget

        return Budget(
            tokens=self._read("budget_tokens", parse_count),
            tool_calls=self._read("budget_tool_calls", parse_count),
            cost=self._read("budget_cost", parse_dollars),
            seconds=self._read("budget_time", parse_seconds),
        )

    def prices(self) -> Prices | None:
        """What tokens cost, where it is said.

        Raises:
            InputError: the text is no price, or a cost is bounded without one.
        """
        from gymrail.errors import InputError

        if self.price is not None:
            return parse_prices(self.price)
        for name in ("cost_limit", "budget_cost"):
            if getattr(self, name) is not None:
                raise InputError(f"{_flag(name)} needs to know what tokens cost: --price IN,OUT (per million).")
        return None

    def config(self) -> dict[str, Any]:
        """What a run's configuration remembers of one episode's limits; None is no limit."""
        return asdict(self.limits())

    def _read(self, name: str, parse: Any) -> Any:
        text = getattr(self, name)
        return None if text is None else parse(text, _flag(name))


def parse_count(text: str, flag: str) -> int:
    """Read a whole number above 0: 5000, 10k, 1.5M.

    Raises:
        InputError: it is none.
    """
    from gymrail.errors import InputError

    match = _COUNT.fullmatch(text.strip())
    value = float(match[1].replace("_", "").replace(",", "")) * _UNITS[match[2].lower()] if match else 0.0
    if value < 1 or not value.is_integer():
        raise InputError(f"{flag} is {text!r}; it must be a whole number of at least 1, such as 5000, 10k or 1.5M.")
    return int(value)


def parse_seconds(text: str, flag: str) -> float:
    """Read a time above 0 in seconds: 90, 90s, 10m, 2h, 1h30m, 2d.

    Raises:
        InputError: it is none.
    """
    from gymrail.errors import InputError

    parts = _TIME.findall(text.strip())
    is_whole = "".join(number + unit for number, unit in parts) == text.strip()
    has_units = len(parts) == 1 or all(unit for _, unit in parts)
    seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
    if seconds <= 0 or not is_whole or not has_units:
        raise InputError(f"{flag} is {text!r}; it must be a time above 0, such as 90s, 10m, 2h or 1h30m.")
    return seconds


def parse_dollars(text: str, flag: str) -> float:
    """Read an amount of US dollars above 0.

    Raises:
        InputError: it is none.
    """
    from gymrail.errors import InputError

    value = _number(text.strip().removeprefix("$"))
    if value is None or value <= 0:
        raise InputError(f"{flag} is {text!r}; it must be an amount of US dollars above 0, such as 0.5 or 20.")
    return value


def parse_prices(text: str) -> Prices:
    """Read prices per million tokens: input, output and, if they differ from input, cached input tokens.

    Raises:
        InputError: it is no such list.
    """
    from gymrail.errors import InputError
    from gymrail.limits import Prices

    values = [_number(part) for part in text.split(",")]
    known = [value for value in values if value is not None and value >= 0]
    if len(known) != len(values) or len(known) not in (2, 3):
        raise InputError(
            f"--price is {text!r}; write US dollars per million input and output tokens, and for cached input tokens "
            "if they are cheaper: --price 1.25,10 or --price 1.25,10,0.125."
        )
    return Prices(*known)


def spending_of(budget: Budget, drain: Drain, prices: Prices | None) -> Spending | None:
    """Watch a run's budget; None where it has none."""
    from gymrail.collect.budget import Spending

    has_one = any(value is not None for value in (budget.tokens, budget.tool_calls, budget.cost, budget.seconds))
    return Spending(budget, drain, prices) if has_one else None


def say_used_up(spending: Spending, progress: Progress, path: Path, resume_command: str) -> bool:
    """Say on stderr which budget ended a run, and what goes on with it; return whether one did."""
    name, budget = spending.used_up, spending.budget
    if name is None or (progress.asked is not None and progress.ended >= progress.asked):
        return False
    said = {
        "tokens": lambda: f"of {budget.tokens:,} tokens is used up ({spending.tokens:,} were taken)",
        "tool_calls": lambda: f"of {budget.tool_calls:,} tool calls is used up ({spending.tool_calls:,} were made)",
        "cost": lambda: f"of ${budget.cost:,g} is used up (${spending.cost:,.6g} were spent)",
        "seconds": lambda: f"of {budget.seconds:,g} seconds is used up",
    }[name]()
    flag = {"tokens": "--budget-tokens", "tool_calls": "--budget-tool-calls", "cost": "--budget-cost"}.get(name)
    played = f"{progress.ended} of {progress.asked} rollouts" if progress.asked else f"{progress.ended} rollouts"
    how = f"Go on, with a higher {flag}:" if flag else "Go on with:"
    typer.echo(f"The run's budget {said}: {played} are in {path}. {how}", err=True)
    typer.echo(f"  {resume_command}", err=True)
    return True


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _number(text: str) -> float | None:
    import math

    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
