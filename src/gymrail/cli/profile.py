"""`gymrail profile`: how hard a run found each task, as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gymrail.cli.options import AsJson, RunOrFile


def profile(
    run: RunOrFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="JSONL file to write.")],
    as_json: AsJson = False,
) -> None:
    """Write each task's row with its pass rate, spread and number of rollouts, for recipes to choose tasks by."""
    from itertools import chain

    from gymrail.cli.output import print_json
    from gymrail.cli.runs import rollouts_of
    from gymrail.collect.task_profile import profile_rows
    from gymrail.data.jsonl import write_jsonl
    from gymrail.errors import GymrailError

    rows = profile_rows(rollouts_of(run))
    first = next(rows, None)
    if first is None:
        raise GymrailError(f"No rollout of '{run}' has a reward; `gymrail metrics {run}` shows what became of them.")
    count = write_jsonl(chain([first], rows), output)
    if as_json:
        print_json({"run": str(run), "output": str(output), "tasks": count})
    else:
        typer.echo(f"Wrote {count} tasks to {output}")
