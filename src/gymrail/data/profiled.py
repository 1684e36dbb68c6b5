"""Tasks that were profiled by `gymrail profile`, chosen by their pass rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gymrail.data.jsonl import read_rows
from gymrail.errors import InputError
from gymrail.task import Task

PROFILE = "_profile"
"""The field of a row that holds the task's statistics."""


def read_profiled(path: Path, task_type: type[Task], environment: str, pass_rate: tuple[float, float]) -> list[Task]:
    """Return an environment's tasks from a profile, in its order, whose pass rate lies within the two bounds.

    Raises:
        InputError: the file cannot be read, has a row without a profile, or has no such task.
    """
    low, high = pass_rate
    found, rates = [], []
    for number, row in read_rows(path):
        statistics = row.get(PROFILE)
        if not isinstance(statistics, dict) or not _is_number(statistics.get("pass_rate")):
            raise InputError(f"{path}, line {number}: no pass rate; `gymrail profile RUN -o {path}` writes profiles.")
        if statistics.get("environment") not in (environment, ""):
            continue
        rates.append(statistics["pass_rate"])
        if low <= rates[-1] <= high:
            task_row = {name: value for name, value in row.items() if name != PROFILE}
            found.append(task_type.from_row(task_row, f"{path}, line {number}"))
    if not found:
        there = f"its {len(rates)} tasks pass at {min(rates):g} to {max(rates):g}" if rates else "it has none at all"
        raise InputError(f"'{path}' has no task of {environment!r} with a pass rate of {low:g} to {high:g}: {there}.")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
