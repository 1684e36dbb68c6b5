"""`gymrail export nemo-gym`: a run as the files of a NeMo Gym collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gymrail.cli.options import AsJson, RunOrFile


def nemo_gym(
    run: RunOrFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.jsonl", help="Rollouts to write; the others stand beside.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run as the files of a NeMo Gym collection: rollouts, failures, inputs and metrics."""
    from gymrail.cli.output import print_json
    from gymrail.cli.runs import rollouts_of
    from gymrail.collect.nemo_gym_files import write_files
    from gymrail.errors import InputError

    if output.exists() and not overwrite:
        raise InputError(f"'{output}' is there already; --overwrite replaces it.")
    written = write_files(lambda: rollouts_of(run), output)
    if as_json:
        print_json({"run": str(run), "output": str(output), **written._asdict()})
    else:
        typer.echo(f"Wrote {written.rollouts} rollouts, {written.failures} failures and their inputs to {output}")
