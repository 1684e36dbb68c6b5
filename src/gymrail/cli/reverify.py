"""`gymrail reverify`: judge a run again with today's verifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.options import AsJson, Configured, PlayedBy, RunOrFile, TasksFile

if TYPE_CHECKING:
    from gymrail.cli.recorded import Recorded
    from gymrail.collect.reverify import Change, Reverified
    from gymrail.collect.run_directory import RunDirectory

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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --output after an interruption; what is judged is not asked for.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge a run again with today's verifier, into a new run; says which rewards changed, and why.

    Exit code 1 when there are rollouts that cannot be judged again. After Ctrl-C, --resume goes on.
    """
    from gymrail.cli.output import console, print_json, show_warnings
    from gymrail.cli.recorded import open_recorded
    from gymrail.cli.runs import run_metrics
    from gymrail.collect.journal import read_rows
    from gymrail.collect.reverify import Change
    from gymrail.collect.run_directory import RunDirectory

    show_warnings()
    recorded = open_recorded(run, environment, config or (), tasks)
    target = output or run.with_name(f"{run.stem if run.is_file() else run.resolve().name}-reverified")
    if not resume:
        _refuse_existing(target)
    chosen = {"failed_only": failed_only, "any_outputs": any_outputs}
    settings = {**recorded.described(), "reverified": str(run), **chosen}
    if tasks is not None:
        settings["tasks_file"] = str(tasks)
    source = RunDirectory.open(run) if run.is_dir() else None
    with RunDirectory.create(
        target,
        settings,
        environments=recorded.specs.values(),
        datasets=source.datasets if source is not None else {},
        execution={"concurrency": concurrency},
        resume=resume,
    ) as into:
        if source is not None:
            into.copy_tasks(source)
        summary = _judge(recorded, into, chosen, concurrency)
        into.write_metrics(run_metrics(into, recorded.specs.values()))
    changes = [Change(**row) for row in read_rows(target / CHANGES)]
    if as_json:
        print_json({"run": str(run), "output": str(target), **_counts(summary), "changes": [c.row() for c in changes]})
    else:
        _print(console(), changes, target)
        typer.echo(_sentence(summary, target))
    if any(change.after is None for change in changes):
        raise typer.Exit(1)


def _judge(recorded: Recorded, into: RunDirectory, chosen: dict[str, bool], concurrency: int) -> Reverified:
    """Judge into the new run; each change is in its file before the rollout is in the run."""
    import shlex
    import sys

    from gymrail.collect.event_loop import run_async
    from gymrail.collect.journal import Journal, encode_row
    from gymrail.collect.reverify import reverify as judge_again

    async def judge(changes: Journal) -> Reverified:
        try:
            return await judge_again(
                recorded.rollouts(), recorded.specs,
                into=into, **chosen, concurrency=concurrency,
                on_change=lambda change: changes.append_line(encode_row(change.row())),
            )  # fmt: skip
        finally:
            for spec in recorded.specs.values():
                await spec.teardown()

    _keep_what_stands(into)
    with Journal.open(into.path / CHANGES) as changes:
        try:
            return run_async(judge(changes))
        except KeyboardInterrupt:
            words = ["gymrail", *sys.argv[1:]]
            typer.echo(f"Interrupted: what is judged is in {into.path}. Go on with:", err=True)
            typer.echo(f"  {shlex.join(words if '--resume' in words else [*words, '--resume'])}", err=True)
            raise typer.Exit(130) from None


def _keep_what_stands(into: RunDirectory) -> None:
    """Drop the changes of rollouts that are judged again now: they could not be judged, or were not yet in the run."""
    from gymrail.collect.journal import Key, read_rows
    from gymrail.data.jsonl import write_jsonl

    path = into.path / CHANGES
    if path.exists():
        done = into.done
        rows = list(read_rows(path))
        keys = (Key(row["environment"], row["task_index"], row["task_id"], row["repeat"]) for row in rows)
        write_jsonl([row for row, key in zip(rows, keys, strict=True) if key in done], path)


def _refuse_existing(target: Path) -> None:
    from gymrail.errors import InputError

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(
            f"'{target}' is there already, and a run is never changed; name another one by --output, or go on with an "
            "interrupted one by --resume."
        )


def _counts(summary: Reverified) -> dict[str, int]:
    names = ("rollouts", "unchanged", "changed", "unjudged", "kept", "earlier")
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
    kept += f", {summary.earlier} were judged before the interruption" if summary.earlier else ""
    return (
        f"Of {summary.rollouts} rollouts {summary.changed} changed, {summary.unchanged} did not, "
        f"{summary.unjudged} cannot be judged again{kept}. Wrote '{target}'."
    )
