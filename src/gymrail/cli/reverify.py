"""`gymrail reverify`: judge a run again with today's verifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.options import AsJson, Configured, PlayedBy, RunOrFile, TasksFile

if TYPE_CHECKING:
    from gymrail.collect.reverify import Change, Reverified

CHANGES = "changes.jsonl"
SHOWN = 100


def reverify(
    run: RunOrFile,
    environment: PlayedBy = None,
    config: Configured = None,
    tasks: TasksFile = None,
    failed_only: Annotated[
        bool,
        typer.Option("--failed-only", help="Only rollouts whose verifier failed: a judge was down."),
    ] = False,
    any_outputs: Annotated[
        bool,
        typer.Option(
            "--any-outputs", help="Judge rollouts whose tools answered in other words, as another program's do."
        ),
    ] = False,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", metavar="N", min=1, help="Episodes at once.")] = 16,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="New run directory; RUN-reverified by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a run again with today's verifier, into a new run; says which rewards changed, and why.

    Exit code 1 when there are rollouts that cannot be judged again.
    """
    from gymrail.cli.output import console, print_json
    from gymrail.cli.recorded import open_recorded
    from gymrail.cli.runs import run_metrics
    from gymrail.collect.event_loop import run_async
    from gymrail.collect.reverify import reverify as judge_again
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.data.jsonl import write_jsonl

    recorded = open_recorded(run, environment, config or (), tasks)
    target = output or run.with_name(f"{run.stem if run.is_file() else run.resolve().name}-reverified")
    _refuse_existing(target)
    changes: list[Change] = []
    chosen = {"failed_only": failed_only, "any_outputs": any_outputs}
    settings = {**recorded.described(), "reverified": str(run), **chosen}
    if tasks is not None:
        settings["tasks_file"] = str(tasks)
    with RunDirectory.create(target, settings, environments=recorded.specs.values()) as into:
        summary = run_async(
            judge_again(
                recorded.rollouts(), recorded.specs,
                into=into, **chosen, concurrency=concurrency, on_change=changes.append,
            )
        )  # fmt: skip
        write_jsonl((change.row() for change in changes), target / CHANGES)
        into.write_metrics(run_metrics(into, recorded.specs.values()))
    if as_json:
        print_json({"run": str(run), "output": str(target), **_counts(summary), "changes": [c.row() for c in changes]})
    else:
        _print(console(), changes, target)
        typer.echo(_sentence(summary, target))
    if summary.unjudged:
        raise typer.Exit(1)


def _refuse_existing(target: Path) -> None:
    from gymrail.errors import InputError

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"'{target}' is there already, and a run is never changed; name another one by --output.")


def _counts(summary: Reverified) -> dict[str, int]:
    names = ("rollouts", "unchanged", "changed", "unjudged", "kept")
    return {name: getattr(summary, name) for name in names}


def _print(out: Any, changes: list[Change], target: Path) -> None:
    from rich.text import Text

    from gymrail.cli.output import number, table

    if not changes:
        return
    shown = table("environment", "task", "repeat", "rollout", "before", "after", "why", right=("task", "repeat"))
    for change in changes[:SHOWN]:
        why = " -> ".join(part for part in (change.reason_before, change.reason_after) if part)
        cells = (change.environment, str(change.task_index), str(change.repeat), change.id)
        rewards = (number(change.before), number(change.after))
        shown.add_row(*(Text(cell) for cell in (*cells, *rewards, why)))
    out.print(shown)
    if len(changes) > SHOWN:
        out.print(f"and {len(changes) - SHOWN} more in '{target / CHANGES}'", markup=False)


def _sentence(summary: Reverified, target: Path) -> str:
    kept = f", {summary.kept} not asked for and kept as they were" if summary.kept else ""
    return (
        f"Of {summary.rollouts} rollouts {summary.changed} changed, {summary.unchanged} did not, "
        f"{summary.unjudged} cannot be judged again{kept}. Wrote '{target}'."
    )
