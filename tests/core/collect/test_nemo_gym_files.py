from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from gymrail import Outcome, Rollout, Task
from gymrail.collect.nemo_gym_files import Written, write_files
from gymrail.errors import Failure, InputError
from gymrail.rollout import task_row_of

Make = Callable[..., Rollout]


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_tasks_of_two_environments_are_told_apart_by_their_numbers_and_failures_have_their_own_file(
    tmp_path: Path, make_rollout: Make
) -> None:
    rollouts = [
        make_rollout(index, repeat, 0.5, environment, metrics={"extracted_answer": "A", "odd": object})
        for environment in ("b", "a")
        for index in range(2)
        for repeat in range(2)
    ]
    failure = Failure("model", "model", "down")
    rollouts.append(make_rollout(2, 0, None, "a", outcome=Outcome("failed", failure)))
    output = tmp_path / "new/run.jsonl"
    assert write_files(lambda: rollouts, output) == Written(rollouts=8, failures=1, inputs=9)
    judged, failed = lines(output), lines(tmp_path / "new/run_failures.jsonl")
    keys = [(row["_ng_task_index"], row["_ng_rollout_index"]) for row in judged]
    assert keys == [(place, repeat) for place in (3, 4, 0, 1) for repeat in range(2)]
    assert [row["agent_ref"]["name"] for row in judged] == ["b"] * 4 + ["a"] * 4
    assert {row["extracted_answer"] for row in judged} == {"A"}
    assert [(row["_ng_task_index"], row["_ng_failure_class"]) for row in failed] == [(2, "model_failed")]
    inputs = lines(tmp_path / "new/run_materialized_inputs.jsonl")
    assert [(row["_ng_task_index"], row["_ng_rollout_index"], row["agent_ref"]) for row in inputs] == [
        (row["_ng_task_index"], row["_ng_rollout_index"], row["agent_ref"]) for row in [*judged, *failed]
    ]
    metrics = orjson.loads((tmp_path / "new/run_aggregate_metrics.json").read_bytes())
    assert [(entry["agent_ref"]["name"], entry["agent_metrics"]["mean/reward"]) for entry in metrics] == [
        ("a", 0.5), ("b", 0.5),
    ]  # fmt: skip


def test_tasks_of_one_environment_keep_their_numbers(tmp_path: Path, make_rollout: Make) -> None:
    write_files(lambda: [make_rollout(7), make_rollout(3)], tmp_path / "run.jsonl")
    assert [row["_ng_task_index"] for row in lines(tmp_path / "run.jsonl")] == [7, 3]


def test_nothing_to_write_and_a_name_of_another_kind_are_refused(tmp_path: Path, make_rollout: Make) -> None:
    with pytest.raises(InputError, match="no rollouts"):
        write_files(list, tmp_path / "run.jsonl")
    with pytest.raises(InputError, match=r"ends in '\.jsonl'"):
        write_files(lambda: [make_rollout()], tmp_path / "run.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reference", [None, {"name": "shop"}, {"name": "mine", "type": "responses_api_agents"}])
def test_a_records_agent_is_no_part_of_its_task(make_rollout: Make, reference: dict[str, str] | None) -> None:
    fields = {} if reference is None else {"agent_ref": reference}
    task = Task.from_row({"responses_create_params": {"input": "go"}, **fields}, "row")
    rollout = Rollout("shop", task, "x", outcome=Outcome("scored"), reward=1.0)
    row = orjson.loads(orjson.dumps(rollout.to_row()))
    assert row["agent_ref"] == (reference or {"type": "responses_api_agents", "name": "shop"})
    assert task_row_of(row) == task.row
    again = Rollout.from_row(row)
    assert (again.task.row, again.task.id, again.to_row()) == (task.row, task.id, row)
