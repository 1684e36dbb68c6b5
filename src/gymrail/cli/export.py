"""`gymrail export`: training rows from the rollouts of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.options import AsJson, RunPath

if TYPE_CHECKING:
    from gymrail.rollout import Rollout
    from gymrail.spec import EnvironmentSpec

Rows = Callable[[Iterable["Rollout"], Mapping[str, "EnvironmentSpec"]], Iterable[dict[str, Any]]]

app = typer.Typer(help="Write training rows from the rollouts of a run.", no_args_is_help=True)

Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="JSONL file to write.")]


@app.command("sft", short_help="Write conversations, for supervised training.")
def sft(
    run: RunPath,
    output: Output,
    min_reward: Annotated[
        float | None,
        typer.Option("--min-reward", metavar="REWARD", help="Lowest reward to keep; all by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write conversations with tools, one row per rollout, for supervised training."""
    from gymrail.data.export import sft_rows

    _export(run, output, lambda rollouts, specs: sft_rows(rollouts, specs=specs, min_reward=min_reward), as_json)


@app.command("dpo", short_help="Write pairs of a better and a worse rollout.")
def dpo(
    run: RunPath,
    output: Output,
    margin: Annotated[
        float,
        typer.Option(
            "--margin",
            metavar="REWARD",
            min=0,
            help="How much more the chosen rollout earns, at least.",
        ),
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Write preference pairs: a better and a worse rollout of one task. Needs runs with --repeats 2 or more."""
    from gymrail.data.export import preference_rows

    _export(run, output, lambda rollouts, specs: preference_rows(rollouts, specs=specs, margin=margin), as_json)


def _export(run: Path, output: Path, rows: Rows, as_json: bool) -> None:
    from itertools import chain

    from gymrail.cli.output import print_json
    from gymrail.cli.runs import specs_of
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.data.jsonl import write_jsonl
    from gymrail.errors import GymrailError

    folder = RunDirectory.open(run)
    made = iter(rows(folder.rollouts(), {spec.name: spec for spec in specs_of(folder)}))
    first = next(made, None)
    if first is None:
        raise GymrailError(f"No rollout of '{run}' makes a row; `gymrail metrics {run}` shows outcomes and rewards.")
    count = write_jsonl(chain([first], made), output)
    if as_json:
        print_json({"run": str(run), "output": str(output), "rows": count})
    else:
        typer.echo(f"Wrote {count} rows to {output}")
