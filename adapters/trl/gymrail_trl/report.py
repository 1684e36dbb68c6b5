"""What a training run leaves behind for people: a table of held-out rewards, and the reward curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Scores = Mapping[str, Mapping[str, float]]
"""Per environment: mean, low, high (the 95% interval) and tasks."""


def print_table(before: Scores | None, after: Scores, title: str) -> None:
    """Print held-out mean reward per environment, before and after, with 95% intervals."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    table.add_column("environment")
    for column in ("before", "after", "change", "tasks"):
        table.add_column(column, justify="right")
    for name, score in after.items():
        earlier = before.get(name) if before else None
        change = f"{score['mean'] - earlier['mean']:+.2f}" if earlier else ""
        table.add_row(name, _cell(earlier), _cell(score), change, f"{score['tasks']:.0f}")
    Console(highlight=False).print(table)


def print_stages(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print the mean reward of every stage, per environment and over all, with 95% intervals."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    table.add_column("stage")
    table.add_column("measured on")
    names = list(rows[0]["scores"]) if rows else []
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row["stage"], row["what"], *(_cell(row["scores"][name]) for name in names))
    Console(highlight=False).print(table)


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
            if key.startswith("env/") and key.endswith("/reward") and isinstance(value, int | float):
                steps, rewards = curves.setdefault(key.split("/")[1], ([], []))
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


def _cell(score: Mapping[str, float] | None) -> str:
    return f"{score['mean']:.2f} [{score['low']:.2f}, {score['high']:.2f}]" if score else ""
