"""`gymrail check`: hold an environment against the contract, without a model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.options import AsJson, Configured, EnvironmentName

if TYPE_CHECKING:
    from gymrail.contract_report import Check, Report
    from gymrail.spec import EnvironmentSpec

MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("!", "yellow")}


def check(
    environment: EnvironmentName,
    tasks: Annotated[int, typer.Option("--tasks", "-n", metavar="N", min=1, help="Tasks to play per check.")] = 16,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of tasks and of scripted mistakes.")] = 0,
    load: Annotated[
        int | None,
        typer.Option("--load", metavar="N", min=1, help="Play N episodes at once too: lag, memory, times."),
    ] = None,
    baselines: Annotated[
        int | None,
        typer.Option(
            "--baselines",
            metavar="N",
            min=1,
            help="Play oracle, noisy, random and empty policies on N validation tasks too; print the README's table.",
        ),
    ] = None,
    config: Configured = None,
    as_json: AsJson = False,
) -> None:
    """Check that an environment is sound: the gold answer scores the maximum, wrong ones score low, replays agree.

    Needs no model. Exit code 1 when a check does not pass.
    """
    from gymrail.cli.configured import configured
    from gymrail.contract import Report, check_environment
    from gymrail.registry import find

    (spec,) = configured([find(environment)], config)
    checks = list(asyncio.run(check_environment(spec, tasks=tasks, seed=seed)).checks)
    figures: dict[str, Any] = {}
    if load is not None:
        from gymrail.contract_load import measure_load

        measured = asyncio.run(measure_load(spec, load, seed=seed))
        checks.append(measured.check())
        figures["load"] = measured.row()
    shown = None
    if baselines is not None:
        more, means, shown = _baselines(spec, baselines, seed)
        checks += more
        figures["baselines"] = {"tasks": baselines, "means": means}
    report = Report(spec.name, tuple(checks))
    if as_json:
        from gymrail.cli.output import print_json

        rows = [item._asdict() for item in report.checks]
        print_json({"environment": report.environment, "passed": report.passed, "checks": rows, **figures})
    else:
        _print(report, shown)
    if not report.passed:
        raise typer.Exit(1)


def _baselines(spec: EnvironmentSpec, tasks: int, seed: int) -> tuple[list[Check], dict[str, float], str]:
    """The checks, the means by policy, and the table."""
    from gymrail.baselines import baseline_table, check_baselines, measure_baselines, stated_in

    measured = asyncio.run(measure_baselines(spec, tasks, seed=seed))
    means = {policy: baseline.mean for policy, baseline in measured.items()}
    return check_baselines(spec, measured, stated_in(spec)), means, baseline_table(measured)


def _print(report: Report, baselines: str | None) -> None:
    from rich.text import Text

    from gymrail.cli.output import console, table

    shown = table("", "check", "detail")
    for item in report.checks:
        mark, style = MARKS[item.passed]
        shown.add_row(Text(mark, style), Text(item.name), Text(item.detail, "" if style != "green" else "dim"))
    out = console()
    out.print(shown)
    if baselines is not None:
        out.print(f"\n{baselines}", markup=False, soft_wrap=True)
    out.print(_verdict(report), markup=False)


def _verdict(report: Report) -> str:
    warnings = f"; {len(report.warnings)} could not be checked" if report.warnings else ""
    if report.failures:
        return f"\n{report.environment}: {len(report.failures)} of {len(report.checks)} checks failed{warnings}."
    return f"\n{report.environment}: all {len(report.checks) - len(report.warnings)} checks passed{warnings}."
