"""What `gymrail metrics` prints of several runs: by how much the reward changed, and which tasks flipped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_TASKS = 10


def compare_runs(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Return `compare` of the first run with each of the others, with the paths of both."""
    from gymrail.cli.runs import rollouts_of
    from gymrail.collect.compare import compare, task_rewards

    first = task_rewards(rollouts_of(runs[0]))
    return [
        {"before": str(runs[0]), "after": str(run), **compare(first, task_rewards(rollouts_of(run)))}
        for run in runs[1:]
    ]


def print_comparison(out: Console, found: dict[str, Any]) -> None:
    """Print one line per environment, and the tasks that flipped."""
    from rich.text import Text

    from gymrail.cli.output import number, table

    out.print(Text(f"{found['before']} -> {found['after']}", "bold"))
    headers = ["environment", "before", "after", "difference", "95% interval", "tasks"]
    shown = table(*headers, right=tuple(headers[1:]), fixed=("environment",))
    rows = dict(found["environments"])
    if len(rows) > 1:
        rows["all"] = found["overall"]
    for name, row in rows.items():
        tasks = row["tasks"]
        counted = f"{tasks['shared']} shared" if row["paired"] else f"{tasks['before']} and {tasks['after']}"
        shown.add_row(
            Text(name or "(unnamed)"),
            Text(number(row["before"])),
            Text(number(row["after"])),
            Text("-" if row["difference"] is None else f"{row['difference']:+.3f}", "bold"),
            Text("-" if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}"),
            Text(counted),
        )
    out.print(shown)
    for title, key in (("solved now, not before", "gained"), ("solved before, not now", "lost")):
        _print_tasks(out, f"{len(found[key])} tasks {title}", found[key])


def _print_tasks(out: Console, title: str, tasks: Sequence[dict[str, Any]]) -> None:
    from rich.text import Text

    out.print(Text(f"\n{title}", "bold"))
    for task in tasks[:SHOWN_TASKS]:
        rates = f"{task['before']:.0%} -> {task['after']:.0%}"
        out.print(Text(f"  {task['environment'] or '(unnamed)'} {task['task_id']}  {rates}"), soft_wrap=True)
    if len(tasks) > SHOWN_TASKS:
        out.print(Text(f"  and {len(tasks) - SHOWN_TASKS} more; --json lists them all", "dim"))
