"""Rollout rows that leave out their task's fields, joined with the tasks that they were played from."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from gymrail import Rollout
from gymrail.collect.task_rows import TaskRows
from gymrail.errors import InputError


def write(path: Path, rows: list[dict[str, Any]]) -> TaskRows:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return TaskRows.read(path)


def task(prompt: Any, **fields: Any) -> dict[str, Any]:
    return {"responses_create_params": {"input": prompt}, **fields}


def rollout(prompt: Any, **fields: Any) -> Rollout:
    row = task(prompt, response={"id": "resp_1", "output": []}, reward=0.0, **fields)
    row["responses_create_params"] |= {"temperature": 1.0, "background": None}
    return Rollout.from_row(row)


TASKS = [task("One?", gold="1"), task([{"role": "user", "content": "Two?"}], gold="2", level={"name": "hard"})]


def test_a_rollout_with_a_place_gets_the_fields_of_the_task_there(tmp_path: Path) -> None:
    joined = write(tmp_path / "tasks.jsonl", TASKS).join(rollout("Two?", _ng_task_index=1, extracted="3", gold="old"))
    assert joined.task.row == {
        "responses_create_params": {"input": "Two?", "temperature": 1.0, "background": None},
        "gold": "2", "level": {"name": "hard"}, "extracted": "3",
    }  # fmt: skip
    assert (joined.task_index, joined.reward) == (1, 0.0)


def test_a_rollout_without_a_place_is_known_by_what_it_asks_however_that_is_written(tmp_path: Path) -> None:
    tasks = write(tmp_path / "tasks.jsonl", TASKS)
    parts = [{"role": "user", "type": "message", "content": [{"type": "input_text", "text": "Two?"}]}]
    assert [tasks.join(rollout(prompt)).task.row["gold"] for prompt in ("Two?", parts, "One?")] == ["2", "2", "1"]
    twice = write(tmp_path / "twice.jsonl", [*TASKS, {**TASKS[0], "_note": "again"}])
    assert twice.join(rollout("One?")).task.row["gold"] == "1"


def test_rows_may_say_their_own_place(tmp_path: Path) -> None:
    tasks = write(tmp_path / "tasks.jsonl", [{**row, "_ng_task_index": 10 - at} for at, row in enumerate(TASKS)])
    assert tasks.join(rollout("Two?", _ng_task_index=9)).task.row["gold"] == "2"
    assert tasks.join(rollout("One?", _ng_task_index=10)).task.row["gold"] == "1"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (rollout("One?", _ng_task_index=7), r"Rollout resp_1 is of task 7, and '.*' has 2 tasks \(0 to 1\); give the"),
        (rollout("One?", _ng_task_index=1), r"is of task 1 and asks 'One\?'; line 2 of '.*' asks 'Two\?'"),
        (rollout("Three?"), r"has no '_ng_task_index', and no row of '.*' asks what it asks: 'Three\?'"),
    ],
)
def test_a_rollout_of_another_tasks_file_is_refused(tmp_path: Path, asked: Rollout, said: str) -> None:
    with pytest.raises(InputError, match=said):
        write(tmp_path / "tasks.jsonl", TASKS).join(asked)


def test_tasks_that_only_their_answer_tells_apart_need_a_place(tmp_path: Path) -> None:
    tasks = write(tmp_path / "tasks.jsonl", [*TASKS, task("One?", gold="I")])
    with pytest.raises(InputError, match="lines 1 and 3 ask the same and differ otherwise"):
        tasks.join(rollout("One?"))
    assert tasks.join(rollout("One?", _ng_task_index=2)).task.row["gold"] == "I"


def test_a_file_that_is_no_tasks_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no tasks"):
        write(tmp_path / "empty.jsonl", [])
    with pytest.raises(InputError, match="line 1: field 'responses_create_params'"):
        write(tmp_path / "other.jsonl", [{"question": "One?"}])
    with pytest.raises(InputError, match="lines 1 and 2 are both task 4"):
        write(tmp_path / "same.jsonl", [{**row, "_ng_task_index": 4} for row in TASKS])
