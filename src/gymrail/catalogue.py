"""The catalogue: every installed environment and tool server in one row each, for `gymrail list`, `gymrail mcp` and
docs/catalogue.md.

An environment is described by its manifest and its class. Where it cannot be imported, its manifest alone describes it,
`error` says why, and `install` gives the command for an extra that is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gymrail.environment import servers_of
from gymrail.errors import EpisodeFailed, GymrailError, InputError, did_you_mean, guard
from gymrail.extras import install_command, missing_packages
from gymrail.properties import CAPABILITIES, STRUCTURES, nearest, plain
from gymrail.registry import environment_folders, find, find_tool_server, tool_server_folders
from gymrail.spec import GENERATED_SPLITS, EnvironmentSpec, Manifest

Row = dict[str, Any]
SPLITS = ("train", "validation", "test", "benchmark", "example")


def environment_rows() -> list[Row]:
    """Describe the installed environments, by name."""
    return asyncio.run(
        _all(_environment_row(name, folder) for name, (_, folder) in sorted(environment_folders().items()))
    )


def tool_server_rows() -> list[Row]:
    """Describe the installed tool servers, by name."""
    return asyncio.run(
        _all(_tool_server_row(name, folder) for name, (_, folder) in sorted(tool_server_folders().items()))
    )


def select(rows: Sequence[Row], *, capabilities: Sequence[str] = (), structure: str | None = None) -> list[Row]:
    """Return the rows that name all of the capabilities, and the rollout structure; capitals, spaces and hyphens make
    no difference.

    Raises:
        InputError: nobody knows that capability or structure; the text names the nearest.
    """
    known = dict.fromkeys([*CAPABILITIES, *(name for row in rows for name in row["capabilities"])])
    wanted = {plain(_known("capability", value, known)) for value in capabilities}
    found = [row for row in rows if wanted <= {plain(name) for name in row["capabilities"]}]
    if structure is None:
        return found
    known = dict.fromkeys([*STRUCTURES, *(row["structure"] for row in rows)])
    asked = plain(_known("rollout structure", structure, known))
    return [row for row in found if plain(row["structure"]) == asked]


def splits_of(spec: EnvironmentSpec) -> list[str]:
    """Return the splits that an environment has tasks for, train first."""
    known = {entry.split for entry in spec.manifest.datasets} | (set(GENERATED_SPLITS) if spec.is_generated else set())
    return sorted(known, key=SPLITS.index)


def install_of(manifest: Manifest) -> str | None:
    """Return the command that installs the extra an environment needs, where that is missing."""
    extra = manifest.extra
    try:
        return install_command(extra) if extra and missing_packages(extra) else None
    except InputError:  # no extra of ours; `gymrail check` says so
        return None


def task_count(row: Row) -> str:
    """Say in a word how many tasks an environment has."""
    counts = row["tasks"]
    if "generated" in counts.values():
        return "generated"
    rows = sum(count for count in counts.values() if isinstance(count, int))
    return f"{rows:,}" + (" + hub" if "hub" in counts.values() else "") if rows else "hub" if counts else "-"


def tool_count(row: Row) -> str:
    """Say in a word how many tools an environment has; "by task" where each task brings its own."""
    if row["error"]:
        return "?"
    return "by task" if row.get("task_tools") else str(len(row["tools"]) or "-")


async def _all(rows: Iterable[Any]) -> list[Row]:
    return [await row for row in rows]


async def _environment_row(name: str, folder: Path) -> Row:
    row: Row = {"name": name, "path": str(folder)}
    spec, error = await _tried(find, name)
    if spec is None:
        return (
            row
            | _from_manifest(_manifest_of(folder), folder)
            | {"tools": [], "task_tools": False, "servers": [], "error": error}
        )
    described = _from_manifest(spec.manifest, folder)
    if spec.is_generated:
        described["tasks"] = {split: described["tasks"].get(split, "generated") for split in splits_of(spec)}
    return row | described | {
        "description": spec.description,
        "splits": splits_of(spec),
        "tools": list(spec.tools),
        "task_tools": hasattr(spec.cls, "call_tool"),
        "servers": [server.__module__.split(".")[-2] for server in servers_of(spec.cls).values()],
        "reward_range": list(spec.reward_range),
        "error": None,
    }  # fmt: skip


async def _tool_server_row(name: str, folder: Path) -> Row:
    row: Row = {"name": name, "path": str(folder), "description": "", "tools": [], "error": None}
    server, error = await _tried(find_tool_server, name)
    if server is None:
        return row | {"error": error}
    return row | {"description": (server.__doc__ or "").strip().split("\n")[0], "tools": list(server.tools)}


async def _tried(function: Callable[[str], Any], name: str) -> tuple[Any, str | None]:
    """Load by name: other people's code runs here; `guard` sorts whatever it raises."""
    try:
        return await guard("setup", function, name), None
    except EpisodeFailed as error:
        return None, error.failure.message


def _manifest_of(folder: Path) -> Manifest:
    file = folder / "environment.yaml"
    try:
        return Manifest.read(file) if file.is_file() else Manifest()
    except GymrailError:
        return Manifest()  # the same complaint that `find` made


def _from_manifest(manifest: Manifest, folder: Path) -> Row:
    properties = manifest.properties
    licences = [manifest.license, *(entry.license for entry in manifest.datasets)]
    counts: dict[str, int | str] = {}
    for entry in manifest.datasets:
        made = {"generator": "generated", "huggingface": "hub"}.get(entry.source)
        counts[entry.split] = made or _rows_in(folder / (entry.path or ""))
    return {
        "description": manifest.description,
        "structure": properties.rollout_structure,
        "capabilities": properties.capabilities,
        "knowledge_domain": properties.knowledge_domain,
        "task_type": properties.task_type,
        "verification": properties.verification,
        "splits": sorted(counts, key=SPLITS.index),
        "tasks": counts,
        "reward_range": list(manifest.reward_range) if manifest.reward_range else None,
        "license": ", ".join(dict.fromkeys(licence for licence in licences if licence)) or None,
        "extra": manifest.extra,
        "install": install_of(manifest),
    }


def _rows_in(file: Path) -> int:
    if not file.is_file():
        return 0
    with file.open("rb") as lines:
        return sum(bool(line.strip()) for line in lines)


def _known(kind: str, value: str, known: Mapping[str, Any]) -> str:
    if plain(value) in {plain(name) for name in known}:
        return value
    near = nearest(value, known)
    hint = f"Did you mean {near!r}?" if near else did_you_mean(value, known, limit=len(known))
    raise InputError(f"There is no {kind} {value!r}. {hint}")
