"""`gymrail metrics`: a run in numbers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.options import AsJson

if TYPE_CHECKING:
    from rich.console import Console

    from gymrail.spec import EnvironmentSpec

SHOWN_FAILURES = 5
WIDE = 100
"""Columns from which on the summary has room for steps and seconds."""
VERY_WIDE = 130
"""... and, where tasks were played more than once, for pass@k and the share of groups that teach GRPO nothing."""


def metrics(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Run directories or JSONL files of rollouts; the others are compared with the first.",
            show_default=False,
        ),
    ],
    by: Annotated[
        str | None, typer.Option("--by", metavar="FIELD", help="Task field to split each environment's metrics by.")
    ] = None,
    nemo_gym: Annotated[
        bool, typer.Option("--nemo-gym", help="Print one JSON document of metrics under NeMo Gym's names.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a run's rewards with intervals, outcomes, pass@k, tools and failures; it may be running. Of several runs,
    print what changed since the first."""
    from gymrail.cli.comparison import compare_runs, print_comparison
    from gymrail.cli.output import console, print_json

    if nemo_gym:
        _print_nemo_gym(runs)
        return
    if len(runs) == 1:
        found = _metrics_of(runs[0], by)
        if as_json:
            print_json({"run": str(runs[0]), **found})
        else:
            _print_run(console(), found)
        return
    comparisons = compare_runs(runs)
    if as_json:
        print_json({"runs": [{"run": str(run), **_metrics_of(run, by)} for run in runs], "comparisons": comparisons})
        return
    out = console()
    if by is not None:
        for run in runs:
            out.print(f"{run}", style="bold", markup=False)
            _print_run(out, _metrics_of(run, by))
    for comparison in comparisons:
        print_comparison(out, comparison)


def _metrics_of(run: Path, by: str | None) -> dict[str, Any]:
    from gymrail.cli.runs import metrics_of, rollouts_of, specs_of
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.errors import InputError

    specs: list[EnvironmentSpec] = []
    if not run.is_file():
        folder = RunDirectory.open(run)
        with contextlib.suppress(InputError):  # the numbers that need no environment code are there all the same
            specs = specs_of(folder)
    found = metrics_of(rollouts_of(run), specs, by=by)
    if by is not None:
        _refuse_unknown_field(run, by, found)
    return found


def _refuse_unknown_field(run: Path, by: str, found: dict[str, Any]) -> None:
    from gymrail.cli.runs import rollouts_of
    from gymrail.collect.metrics import ABSENT
    from gymrail.errors import InputError, did_you_mean
    from gymrail.task import fields_of

    environments = found["environments"].values()
    if environments and all(set(row["subsets"]) == {ABSENT} for row in environments):
        known = dict.fromkeys(name for rollout in rollouts_of(run) for name in fields_of(rollout.task))
        raise InputError(f"No task of '{run}' has a field {by!r}. {did_you_mean(by, known)}")


def _print_nemo_gym(runs: list[Path]) -> None:
    from gymrail.cli.output import print_json
    from gymrail.cli.runs import rollouts_of
    from gymrail.collect.nemo_gym_metrics import gym_metrics
    from gymrail.errors import InputError

    if len(runs) > 1:
        raise InputError(f"--nemo-gym takes one run, and {len(runs)} are given; call it once for each.")
    print_json(gym_metrics(rollouts_of(runs[0])))


def _print_run(out: Console, found: dict[str, Any]) -> None:
    print_summary(out, found)
    for name, row in found["environments"].items():
        _print_details(out, name, row)
    if len(found["environments"]) > 1:
        _print_properties(out, found.get("properties", {}))


def _print_properties(out: Console, properties: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    for name, values in properties.items():
        out.print(Text(f"\n{name.replace('_', ' ')}", "bold cyan"))
        grid = Table.grid(padding=(0, 2))
        for value, row in values.items():
            grid.add_row(Text(f"  {value}", "dim"), Text(_reward(row)))
        out.print(grid)


def _reward(row: dict[str, Any]) -> str:
    from gymrail.cli.output import number

    reward = row["reward"]
    spread = "" if reward["low"] is None else f" ({number(reward['low'])} to {number(reward['high'])})"
    return f"{number(reward['mean'])}{spread}, {row['tasks']} tasks"


def print_summary(out: Console, found: dict[str, Any]) -> None:
    """Print one line per environment, and the most frequent failures."""
    from rich.text import Text

    from gymrail.cli.output import number, table

    headers = ["environment", "rollouts", "reward", "95% interval", "truncated", "failed"]
    headers += ["steps", "seconds"] if out.width >= WIDE else []
    k = max((int(k) for row in found["environments"].values() for k in row["pass@k"]), default=1)
    has_groups = out.width >= VERY_WIDE and found["overall"]["groups"]["count"] > 0
    headers += [f"pass@{k}"] if has_groups and k > 1 else []
    headers += ["equal groups"] if has_groups else []
    shown = table(*headers, right=tuple(headers[1:]), fixed=("environment",))
    rows = dict(found["environments"])
    if len(rows) > 1:
        rows["all"] = found["overall"]
    for name, row in rows.items():
        reward, outcomes = row["reward"], row["outcomes"]
        cells = [
            Text(name or "(unnamed)", "bold" if name == "all" else ""),
            Text(str(row["rollouts"])),
            Text(number(reward["mean"]), "bold"),
            Text("-" if reward["low"] is None else f"{number(reward['low'])} to {number(reward['high'])}"),
            Text(str(outcomes["truncated"] or "-")),
            Text(str(outcomes["failed"] or "-"), "red" if outcomes["failed"] else ""),
            Text("-" if row["steps"] is None else f"{row['steps']:.1f}"),
            Text(number(row["seconds"].get("p50"))),
        ]
        if has_groups:
            at_k = row["pass@k"].get(str(k))
            cells += [Text(number(at_k["mean"] if at_k else None))] if k > 1 else []
            share = row["groups"]["zero_spread_share"]
            cells.append(Text("-" if share is None else f"{share:.0%}"))
        shown.add_row(*cells[: len(headers)])
    out.print(shown)
    if found["failures"]:
        _print_failures(out, found["failures"])


def _print_failures(out: Console, failures: list[dict[str, Any]]) -> None:
    from rich.text import Text

    out.print(Text("\nFailures", "bold red"))
    for failure in failures[:SHOWN_FAILURES]:
        place = f" [{failure['place']}]" if failure["place"] else ""
        heading = (
            f"  {failure['count']} x {failure['kind']} failure at stage {failure['stage']} ({failure['environment']})"
        )
        out.print(Text(heading))
        out.print(Text(f"    {failure['message']}{place}", "dim"), soft_wrap=True)
    if len(failures) > SHOWN_FAILURES:
        out.print(Text(f"  and {len(failures) - SHOWN_FAILURES} other kinds"))


def _print_details(out: Console, name: str, row: dict[str, Any]) -> None:
    """Print what is not in the summary; nothing where there is nothing."""
    from rich.table import Table
    from rich.text import Text

    from gymrail.cli.output import number

    lines: list[tuple[str, str]] = []
    for name_at_k in ("pass@k", "pass^k", "avg@k", "majority@k"):
        if len(row[name_at_k]) > 1:
            means = (f"{k}: {number(value['mean'])}" for k, value in row[name_at_k].items())
            lines.append((name_at_k, ", ".join(means)))
    if row["groups"]["count"]:
        share = row["groups"]["zero_spread_share"]
        lines.append(
            ("groups", f"{row['groups']['count']} tasks played more than once, {share:.0%} of them with equal rewards")
        )
    for title, key in (
        ("key metrics", "key_metrics"),
        ("reward components", "reward_components"),
        ("verdict metrics", "metrics"),
        ("environment metrics", "computed"),
    ):
        if row.get(key):
            values = (
                (name, number(value) if isinstance(value, int | float) else value) for name, value in row[key].items()
            )
            lines.append((title, ", ".join(f"{name} {value}" for name, value in values)))
    if "computed_error" in row:
        lines.append(("environment metrics", f"compute_metrics broke: {row['computed_error']}"))
    if row["tools"]:
        tools = (f"{tool} {entry['calls']} calls{_errors(entry)}" for tool, entry in row["tools"].items())
        lines.append(("tools", ", ".join(tools)))
    if row["tokens"]["output"]:
        cached = f" ({row['tokens']['cached']:,} cached)" if row["tokens"]["cached"] else ""
        lines.append(("tokens", f"{row['tokens']['input']:,} in{cached}, {row['tokens']['output']:,} out"))
    if any(row["environment_tokens"].values()):
        said = f"{row['environment_tokens']['input']:,} in, {row['environment_tokens']['output']:,} out"
        paid = f", ${row['environment_cost']:,.6g}" if row["environment_cost"] else ""
        lines.append(("judges, users", f"{said}{paid}"))
    for title, key in (("seconds", "seconds"), ("of the model", "model_seconds")):
        if row[key]:
            parts = (f"{name} {number(row[key][name])}" for name in ("p50", "p90", "p99", "max"))
            lines.append((title, ", ".join(parts)))
    if row["cost"]:
        each = row["cost"]["per_rollout"]
        lines.append(
            ("cost", f"${row['cost']['total']:,.6g}, ${each['mean']:.3g} per rollout, at most ${each['max']:.3g}")
        )
    if row["retries"]:
        lines.append(("played again", ", ".join(f"{kind} {count}" for kind, count in row["retries"].items())))
    if row["truncations"]:
        lines.append(("truncated by", ", ".join(f"{reason} {count}" for reason, count in row["truncations"].items())))
    for subset, found in row.get("subsets", {}).items():
        lines.append((subset, _reward(found)))
    if not lines:
        return
    out.print(Text(f"\n{name or '(unnamed)'}", "bold cyan"))
    grid = Table.grid(padding=(0, 2))
    for title, text in lines:
        grid.add_row(Text(f"  {title}", "dim"), Text(text))
    out.print(grid)


def _errors(tool: dict[str, Any]) -> str:
    return f" ({tool['error_share']:.0%} refused)" if tool["errors"] else ""
