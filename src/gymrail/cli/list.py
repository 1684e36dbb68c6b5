"""`gymrail list`: the installed environments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.options import AsJson

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = {
    "name": 0, "pattern": 0, "capabilities": 0, "tools": 0, "tasks": 100, "verification": 110, "licence": 110,
    "description": 170,
}  # fmt: skip
"""From which width of the terminal on a column is shown; `gymrail show` and --json have them all."""


def list_environments(
    capability: Annotated[
        list[str] | None,
        typer.Option("--capability", metavar="NAME", help="Only with this capability; may be repeated: with all."),
    ] = None,
    structure: Annotated[
        str | None, typer.Option("--structure", metavar="NAME", help="Only with this rollout structure.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the installed environments."""
    from gymrail.catalogue import environment_rows, select

    rows = environment_rows()
    chosen = select(rows, capabilities=capability or (), structure=structure)
    if as_json:
        from gymrail.cli.output import print_json

        print_json({"environments": chosen})
        return
    from gymrail.cli.output import console

    out = console()
    if chosen:
        _print_table(chosen, out)
    _print_rest(chosen, len(rows), out)


def _print_table(rows: list[dict[str, Any]], out: Console) -> None:
    from rich.text import Text

    from gymrail.catalogue import task_count, tool_count
    from gymrail.cli.output import table

    columns = [name for name, width in COLUMNS.items() if out.width >= width]
    shown = table(*columns, fixed=("name", "pattern", "tasks", "verification"), right=("tools",))
    for row in rows:
        cells = {
            "name": Text(row["name"], "bold"),
            "pattern": Text(row["structure"]),
            "capabilities": Text(", ".join(row["capabilities"]) or "-"),
            "tools": Text(tool_count(row)),
            "tasks": Text(task_count(row)),
            "verification": Text(row["verification"]),
            "licence": Text(row["license"] or "-"),
            "description": Text(row["description"]),
        }
        shown.add_row(*(cells[column] for column in columns))
    out.print(shown)


def _print_rest(rows: list[dict[str, Any]], installed: int, out: Console) -> None:
    """What does not run as it is, and how many there are."""
    from rich.text import Text

    broken = [row for row in rows if row["error"] or row["install"]]
    if broken:
        out.print()
    for row in broken:
        if row["install"]:
            out.print(Text(f"{row['name']} needs packages that are not installed: {row['install']}", "yellow"))
        else:
            out.print(Text(f"{row['name']} cannot be loaded: {row['error']}", "red"))
    count = f"{len(rows)} of {installed}" if len(rows) < installed else f"{installed}"
    out.print(f"\n{count} environments. `gymrail show NAME` tells more about one.", markup=False)
