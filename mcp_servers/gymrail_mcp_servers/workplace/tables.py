"""The office's tables, loaded once from CSV files or from rows."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from gymrail.errors import InputError
from gymrail.tables import Row, Table


class Office:
    """Everything an episode starts from; without `__dict__`, as the tables."""

    __slots__ = ("calendar", "customers", "directory", "emails", "tasks", "visits", "visits_by_date")

    def __init__(self, rows: Mapping[str, Sequence[Row]], directory: Sequence[str]) -> None:
        """Take rows as CSV files have them, by table."""
        self.emails = Table("email_id", rows["emails"], ("subject", "body", "sender/recipient"))
        self.calendar, self.tasks, self.customers = (
            Table(COLUMNS[name][0], rows[name]) for name in ("calendar", "tasks", "customers")
        )
        self.visits = [{**row, "user_engaged": row["user_engaged"] == "True"} for row in rows["visits"]]
        self.directory = tuple(directory)
        by_date: dict[str, list[Row]] = {}
        for row in sorted(self.visits, key=lambda row: row["date_of_visit"]):
            by_date.setdefault(row["date_of_visit"], []).append(row)
        self.visits_by_date = by_date


COLUMNS = {
    "emails": ("email_id", "inbox/outbox", "sender/recipient", "subject", "sent_datetime", "body"),
    "calendar": ("event_id", "event_name", "participant_email", "event_start", "duration"),
    "tasks": ("task_id", "task_name", "assigned_to_email", "list_name", "due_date", "board"),
    "customers": (
        "customer_id", "assigned_to_email", "customer_name", "customer_email", "customer_phone", "last_contact_date",
        "product_interest", "status", "follow_up_by", "notes",
    ),
    "visits": (
        "date_of_visit", "visitor_id", "page_views", "session_duration_seconds", "traffic_source", "user_engaged",
    ),
}  # fmt: skip
_FILES = {
    "emails": "emails.csv", "calendar": "calendar_events.csv", "tasks": "project_tasks.csv",
    "customers": "customer_relationship_manager_data.csv", "visits": "analytics_data.csv",
}  # fmt: skip


@functools.lru_cache(maxsize=8)
def load_office(folder: Path) -> Office:
    """Load the CSV tables of NeMo Gym's workplace_assistant: the folder that holds `processed` and `raw`, or one folder
    with all six files.

    Raises:
        InputError: a file is missing, or lacks a column.
    """
    rows = {table: _read(_find(folder, file), COLUMNS[table]) for table, file in _FILES.items()}
    return Office(rows, _find(folder, "email_addresses.csv").read_text(encoding="utf-8").split())


def _read(path: Path, columns: Sequence[str]) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"'{path}' has no column {missing[0]!r}; it needs {', '.join(columns)}.")
        return [{column: row[column] or None for column in columns} for row in reader]


def _find(folder: Path, file: str) -> Path:
    for part in ("", "processed", "raw"):
        if (folder / part / file).is_file():
            return folder / part / file
    raise InputError(f"data_dir {str(folder)!r} has no {file}; name the folder `csv_data` of the original's tables.")
