"""`gymrail new environment`: write the files of a new environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Write the files of a new environment.", no_args_is_help=True)


@app.callback()
def _new() -> None:
    """Write the files of a new environment."""


@app.command("environment", short_help="Write an environment that passes its own check.")
def environment(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of the environment, such as word_count: lower case and underscores.",
            show_default=False,
        ),
    ],
    directory: Annotated[Path, typer.Option("--directory", "-d", metavar="FOLDER", help="Where to write.")] = Path("."),
) -> None:
    """Write an environment that passes its own check, to change into yours."""
    from gymrail.scaffold import new_environment

    folder = new_environment(name, directory)
    shown = folder if folder.is_absolute() else f"./{folder}"
    typer.echo(f"Wrote {shown}:")
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        typer.echo(f"  {file.relative_to(folder)}")
    typer.echo(f"Next:\n  gymrail check {shown}\n  gymrail rollout {shown} --model oracle")
