"""What a training run leaves behind for people: a table of held-out rewards, and the reward curve as a picture."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Scores = Mapping[str, Mapping[str, float]]
"""Per environment: mean, low, high (the 95% interval) and tasks."""
_FILE_WIDTH = 160


def print_table(before: Scores | None, after: Scores, title: str) -> None:
    """Print held-out mean reward per environment, before and after, with 95% intervals; names are never cut."""
    from rich.table import Table

    table = Table(title=title)
    table.add_column("environment", no_wrap=True)
    for column in ("before", "after"):
        table.add_column(column, justify="right", overflow="fold")
    for column in ("change", "tasks"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, score in after.items():
        earlier = before.get(name) if before else None
        change = score["mean"] - earlier["mean"] if earlier else math.nan
        table.add_row(
            name, _cell(earlier), _cell(score), "" if math.isnan(change) else f"{change:+.2f}", f"{score['tasks']:.0f}"
        )
    _console().print(table)


def print_stages(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print the mean reward of every stage, per environment and over all, with 95% intervals: environments side by
    side where there is room for their names, else one under the other."""
    from rich.table import Table

    names = list(rows[0]["scores"]) if rows else []
    wide = Table(title=title)
    for column in ("stage", "measured on"):
        wide.add_column(column, no_wrap=True)
    for name in names:
        wide.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        wide.add_row(row["stage"], row["what"], *(_cell(row["scores"][name]) for name in names))
    console = _console()
    if console.measure(wide, options=console.options.update(width=10_000)).maximum <= console.width:
        console.print(wide)
        return
    long = Table(title=title)
    for column in ("stage", "measured on"):
        long.add_column(column, overflow="fold")
    long.add_column("environment", no_wrap=True)
    long.add_column("mean reward", justify="right", overflow="fold")
    for row in rows:
        for place, name in enumerate(names):
            head = (row["stage"], row["what"]) if place == 0 else ("", "")
            long.add_row(*head, name, _cell(row["scores"][name]), end_section=place == len(names) - 1)
    console.print(long)


def write_json(path: Path, value: Any) -> None:
    """Write what others read, too: JSON has no NaN, so a mean or an interval of too few values is null."""
    path.write_text(json.dumps(_finite(value), indent=2), encoding="utf-8")


def write_curve(
    log: Sequence[Mapping[str, Any]], path: Path, before: Scores | None = None, after: Scores | None = None
) -> bool:
    """Draw mean training reward per environment over steps, and the held-out scores at both ends; False where
    matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for entry in log:
        for key, value in entry.items():
            parts = key.split("/")
            if parts[0] == "env" and parts[2:] == ["reward"] and isinstance(value, int | float):
                steps, rewards = curves.setdefault(parts[1], ([], []))
                steps.append(int(entry["step"]))
                rewards.append(float(value))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, (steps, rewards) in sorted(curves.items()):
        (line,) = axes.plot(steps, rewards, label=name, linewidth=1.8)
        for scores, step in ((before, 0), (after, steps[-1])):
            if scores and name in scores:
                score = scores[name]
                error = [[score["mean"] - score["low"]], [score["high"] - score["mean"]]]
                axes.errorbar([step], [score["mean"]], yerr=error, fmt="o", color=line.get_color(), capsize=4)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("mean reward")
    axes.set_title("GRPO: training reward (lines), held-out reward with 95% interval (points)", fontsize=10)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    return True


def _console() -> Console:
    from rich.console import Console

    # In a file or a pipe nothing is gained by 80 columns.
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _FILE_WIDTH
    return Console(width=width, highlight=False)


def _cell(score: Mapping[str, float] | None) -> str:
    if score is None or math.isnan(score["mean"]):
        return "" if score is None else "none scored"
    interval = "" if math.isnan(score["low"]) else f" [{score['low']:.2f}, {score['high']:.2f}]"
    return f"{score['mean']:.2f}{interval}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
