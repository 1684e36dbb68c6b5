"""`gymrail check`: hold an environment against the contract, without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gymrail.cli.options import AsJson, EnvironmentName

if TYPE_CHECKING:
    from gymrail.contract import Report

MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("!", "yellow")}


def check(
    environment: EnvironmentName,
    tasks: Annotated[int, typer.Option("--tasks", "-n", metavar="N", min=1, help="Tasks to play per check.")] = 16,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of tasks and of scripted mistakes.")] = 0,
    load: Annotated[
        int | None,
        typer.Option("--load", metavar="N", min=1, help="Play N episodes at once too: lag, memory, times."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that an environment is sound: the gold answer scores the maximum, wrong ones score low, replays agree.

    Needs no model. Exit code 1 when a check does not pass.
    """
    import asyncio

    from rich.text import Text

    from gymrail.cli.output import console, print_json, table
    from gymrail.contract import Report, check_environment
    from gymrail.registry import find

    spec = find(environment)
    report = asyncio.run(check_environment(spec, tasks=tasks, seed=seed))
    measured = None
    if load is not None:
        from gymrail.contract_load import measure_load

        measured = asyncio.run(measure_load(spec, load, seed=seed))
        report = Report(report.environment, (*report.checks, measured.check()))
    if as_json:
        checks = [item._asdict() for item in report.checks]
        figures = {} if measured is None else {"load": measured.row()}
        print_json({"environment": report.environment, "passed": report.passed, "checks": checks, **figures})
    else:
        shown = table("", "check", "detail")
        for item in report.checks:
            mark, style = MARKS[item.passed]
            shown.add_row(Text(mark, style), Text(item.name), Text(item.detail, "" if style != "green" else "dim"))
        out = console()
        out.print(shown)
        out.print(_verdict(report), markup=False)
    if not report.passed:
        raise typer.Exit(1)


def _verdict(report: Report) -> str:
    warnings = f"; {len(report.warnings)} could not be checked" if report.warnings else ""
    if report.failures:
        return f"\n{report.environment}: {len(report.failures)} of {len(report.checks)} checks failed{warnings}."
    return f"\n{report.environment}: all {len(report.checks) - len(report.warnings)} checks passed{warnings}."
