"""A tasks file beside a rollouts file: rollout rows that leave out their task's fields get them back.

    tasks = TaskRows.read(Path("validation.jsonl"))
    whole = tasks.join(rollout)

A row belongs to the rollouts of its place (`_ng_task_index`, counted from 0) or, where a rollout has no place, to those
that were asked the same. What was asked is compared in any case: a reward by another task's answer would be made up.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gymrail.data.jsonl import read_rows
from gymrail.errors import InputError
from gymrail.rollout import Rollout, text_of
from gymrail.task import Task

_SHOWN = 80


class _TaskRow(NamedTuple):
    line: int
    row: dict[str, Any]
    asked: bytes
    """What identifies its prompt."""


class TaskRows:
    """The rows of a tasks file, found by place and by what they ask."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._by_index: dict[int, _TaskRow] = {}
        self._by_prompt: dict[bytes, list[_TaskRow]] = {}

    @classmethod
    def read(cls, path: Path) -> TaskRows:
        """
        Raises:
            InputError: the file cannot be read, has no rows, or a row is no task or has another's place.
        """
        rows = cls(path)
        for place, (line, row) in enumerate(read_rows(path)):
            asked = _prompt_of(Task.from_row(row, f"{path}, line {line}"))
            index = row.get("_ng_task_index", place)
            if index in rows._by_index:
                raise InputError(f"{path}: lines {rows._by_index[index].line} and {line} are both task {index!r}.")
            rows._by_index[index] = entry = _TaskRow(line, row, asked)
            rows._by_prompt.setdefault(asked, []).append(entry)
        if not rows._by_index:
            raise InputError(f"'{path}' has no tasks.")
        return rows

    def join(self, rollout: Rollout) -> Rollout:
        """Return the rollout with its task's fields; where both have one the file's counts, but for the prompt.

        Raises:
            InputError: the file has no such task, several different ones, or another one in its place.
        """
        # A group that says something is the prompt of a row without a place; see `Rollout.from_row`.
        entry = self._at_place(rollout) if not rollout.group else self._of_prompt(rollout)
        fields = {name: value for name, value in entry.row.items() if name not in _NOT_JOINED}
        return replace(rollout, task=Task.from_row({**rollout.task.row, **fields}, f"task of rollout {rollout.id}"))

    def _at_place(self, rollout: Rollout) -> _TaskRow:
        entry = self._by_index.get(rollout.task_index)
        if entry is None:
            raise InputError(
                f"Rollout {rollout.id} is of task {rollout.task_index}, and '{self.path}' has {len(self._by_index)} "
                f"tasks ({min(self._by_index)} to {max(self._by_index)}); give the file that the run was played from."
            )
        if entry.asked != _prompt_of(rollout.task):
            raise InputError(
                f"Rollout {rollout.id} is of task {rollout.task_index} and asks {_shown(rollout.task)}; line "
                f"{entry.line} of '{self.path}' asks {_shown(Task.from_row(entry.row, str(self.path)))}. "
                "Give the file that the run was played from."
            )
        return entry

    def _of_prompt(self, rollout: Rollout) -> _TaskRow:
        entries = self._by_prompt.get(_prompt_of(rollout.task))
        if entries is None:
            raise InputError(
                f"Rollout {rollout.id} has no '_ng_task_index', and no row of '{self.path}' asks what it asks: "
                f"{_shown(rollout.task)}. Give the file that the run was played from."
            )
        first = entries[0]
        for other in entries[1:]:
            if _joined(other.row) != _joined(first.row):
                raise InputError(
                    f"{self.path}: lines {first.line} and {other.line} ask the same and differ otherwise, and rollout "
                    f"{rollout.id} has no '_ng_task_index' that says which one is meant."
                )
        return first


_NOT_JOINED = ("responses_create_params", "_ng_task_index")


def _joined(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _NOT_JOINED and not name.startswith("_")}


def _prompt_of(task: Task) -> bytes:
    """What a prompt says, whatever the form in which a program writes it down."""
    said = [task.responses_create_params.get("instructions") or ""]
    for item in task.input_items:
        content = item.get("content")
        parts = content if isinstance(content, list) else []
        rest = [part for part in parts if "text" not in part]
        names = ("name", "arguments", "call_id", "output")
        said.append([item.get("role"), text_of(item), rest, *(item.get(name) for name in names)])
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def _shown(task: Task) -> str:
    texts = [text_of(item) for item in task.input_items if item.get("role") == "user"]
    text = texts[-1] if texts else ""
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
