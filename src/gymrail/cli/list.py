"""`gymrail list`: the installed environments."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymrail.cli.options import AsJson

if TYPE_CHECKING:
    from gymrail.spec import EnvironmentSpec, Manifest

COLUMNS = {"name": 0, "structure": 0, "tools": 0, "splits": 150, "verification": 110, "licence": 110, "description": 0}
"""From which width of the terminal on a column is shown; `gymrail show` and --json have them all."""


def list_environments(
    as_json: AsJson = False,
) -> None:
    """List the installed environments."""
    from gymrail.registry import environment_folders

    rows = [summarize(name, folder) for name, (_, folder) in sorted(environment_folders().items())]
    if as_json:
        from gymrail.cli.output import print_json

        print_json({"environments": rows})
    else:
        _print_table(rows)


def summarize(name: str, folder: Path) -> dict[str, Any]:
    """Describe an environment in one row; by its manifest, and with the `error`, where it cannot be imported."""
    from gymrail.errors import EpisodeFailed, GymrailError, guard
    from gymrail.registry import find
    from gymrail.spec import Manifest

    row: dict[str, Any] = {"name": name, "path": str(folder)}
    try:
        # Other people's code runs here; `guard` sorts whatever it raises.
        spec = asyncio.run(guard("setup", find, name))
    except EpisodeFailed as error:
        try:
            manifest = (
                Manifest.read(folder / "environment.yaml") if (folder / "environment.yaml").is_file() else Manifest()
            )
        except GymrailError:
            manifest = Manifest()  # the same complaint that `find` made
        return row | _from_manifest(manifest) | {"error": error.failure.message}
    described = _from_manifest(spec.manifest)
    return (
        row
        | described
        | {"description": spec.description, "tools": list(spec.tools), "splits": splits_of(spec), "error": None}
    )


def splits_of(spec: EnvironmentSpec) -> list[str]:
    """Return the splits that an environment has tasks for, train first."""
    from gymrail.spec import GENERATED_SPLITS

    order = ("train", "validation", "test", "benchmark", "example")
    known = {entry.split for entry in spec.manifest.datasets} | (set(GENERATED_SPLITS) if spec.is_generated else set())
    return sorted(known, key=order.index)


def _from_manifest(manifest: Manifest) -> dict[str, Any]:
    licences = [manifest.license, *(entry.license for entry in manifest.datasets)]
    return {
        "description": manifest.description,
        "structure": manifest.properties.rollout_structure,
        "tools": [],
        "splits": sorted({entry.split for entry in manifest.datasets}),
        "verification": manifest.properties.verification,
        "license": ", ".join(dict.fromkeys(licence for licence in licences if licence)) or None,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.text import Text

    from gymrail.cli.output import console, table

    out = console()
    columns = [name for name, width in COLUMNS.items() if out.width >= width]
    shown = table(*columns, fixed=("name",), right=("tools",))
    for row in rows:
        tools = "?" if row["error"] else str(len(row["tools"]) or "-")
        cells = {
            "name": Text(row["name"], "bold"),
            "structure": Text(row["structure"]),
            "tools": Text(tools),
            "splits": Text(", ".join(row["splits"])),
            "verification": Text(row["verification"]),
            "licence": Text(row["license"] or "-"),
            "description": Text(f"cannot be loaded: {row['error']}", "red")
            if row["error"]
            else Text(row["description"]),
        }
        shown.add_row(*(cells[column] for column in columns))
    out.print(shown)
    out.print(f"\n{len(rows)} environments. `gymrail show NAME` tells more about one.", markup=False)
