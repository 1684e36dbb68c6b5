"""`tasks.jsonl` of a run: every task that was handed out to be played, once, as its row.

    {"_ng_task_index": 17, "_task_id": "62d09808f1061bf0", "agent_ref": {"name": "counter"}, ...the task's own fields}

`agent_ref` names the environment, `_task_id` is what the task's rollouts have as `gymrail.task_id`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymrail.collect.done import Done
from gymrail.collect.journal import Journal, Key, encode_row, read_rows

if TYPE_CHECKING:
    from gymrail.collect.runner import Job

INDEX, TASK_ID, ENVIRONMENT = "_ng_task_index", "_task_id", "agent_ref"


class TasksFile:
    """The file, open for appending once a task is handed out.

    Tasks that come in the order of their indices, a task's repeats together, take no memory, however many there are.
    """

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        self._journal: Journal | None = None
        self._last: Key | None = None
        self._highest: dict[str, int] = {}
        """By environment, the highest index in the file."""
        self._known = Done()
        """What is in the file, but for what this process wrote in order."""
        self._is_in_order = True
        """No index was lower than one before, as far as this process wrote."""

    def add(self, job: Job) -> None:
        """Write the job's task unless the file has it; it is durable when this returns.

        Raises:
            JournalError: it cannot be written.
        """
        key = Key(job.spec.name, job.task_index, job.task.id, 0)
        if key == self._last:
            return
        if self._journal is None:
            self._journal = Journal.open(self.path, fsync=self._fsync)
            self._read()
        if not self._has(key):
            self._journal.append_line(encode_row(task_row(job)))
            self._note(key)
        self._last = key

    def close(self) -> None:
        """Give the file back; safe to call again."""
        if self._journal is not None:
            self._journal.close()

    def _has(self, key: Key) -> bool:
        if key.task_index > self._highest.get(key.environment, -1):
            return False
        if key in self._known:
            return True
        if self._is_in_order and key.task_index > self._known.places(key.environment).highest:
            self._is_in_order = False
            self._read()
        return key in self._known

    def _note(self, key: Key) -> None:
        before = self._highest.get(key.environment, -1)
        if key.task_index <= before or not self._is_in_order:
            self._known.add(key)
        self._highest[key.environment] = max(before, key.task_index)

    def _read(self) -> None:
        for row in read_rows(self.path):
            key = _key_of_task(row)
            self._known.add(key)
            self._highest[key.environment] = max(self._highest.get(key.environment, -1), key.task_index)


def task_row(job: Job) -> dict[str, Any]:
    """Return a task as the file has it."""
    agent = job.task.row.get(ENVIRONMENT)
    named = {**(agent if isinstance(agent, dict) else {}), "name": job.spec.name}
    place = {INDEX: job.task_index, TASK_ID: job.task.id}
    return {**place, ENVIRONMENT: named, **{k: v for k, v in job.task.row.items() if k not in (*place, ENVIRONMENT)}}


def _key_of_task(row: dict[str, Any]) -> Key:
    return Key(row[ENVIRONMENT]["name"], row[INDEX], row[TASK_ID], 0)
