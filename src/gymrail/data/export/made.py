"""An export that is there already: what it holds, for who trains on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from gymrail.data.export.write import SUMMARY
from gymrail.errors import InputError


def is_export(folder: Path) -> bool:
    return (folder / SUMMARY).is_file()


def open_export(folder: Path, kind: str, destinations: Sequence[str]) -> dict[str, Any]:
    """Return an export's summary.

    Args:
        kind: what is trained: sft or dpo.
        destinations: who the trainer can take the rows of; the first is named in an error.

    Raises:
        InputError: it holds other rows, or rows for another program.
    """
    try:
        summary = orjson.loads((folder / SUMMARY).read_bytes())
        found = (summary["kind"], summary["for"], summary["format"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        raise InputError(f"data: '{folder / SUMMARY}' cannot be read; export again with --overwrite.") from None
    if found[0] != kind or found[1] not in destinations:
        raise InputError(
            f"data: '{folder}' is an export of {found[0]} rows for {found[1]}, and {kind} needs {kind} rows for "
            f"{' or '.join(destinations)}: gymrail export {kind} RUN --for {destinations[0]} -o DIR."
        )
    return summary


def worth_of(row: dict[str, Any], where: str) -> float:
    """The reward of the rollout that a row was made of; of a pair, how much more the chosen one earned.

    Raises:
        InputError: the row does not tell.
    """
    lineage = row.get("lineage") or {}
    try:
        if "chosen" in lineage:
            return float(lineage["chosen"]["reward"]) - float(lineage["rejected"]["reward"])
        return float(lineage["reward"])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"data: a row of '{where}' has no reward in its lineage, so min_reward and margin cannot be asked of it; "
            "set min_reward=null and margin=0, or name an export of `gymrail export`."
        ) from None
