"""Exports with a validation split and against benchmarks: no task on both sides, none that a benchmark has."""

from pathlib import Path
from typing import Any

import datasets
import orjson
import pyarrow.parquet as pq
import pytest

from gymrail import Rollout, Task
from gymrail.data.contamination import BenchmarkIndex
from gymrail.data.export import Dpo, Kto, Prm, Rft, Selection, Sft, export
from gymrail.data.splits import split_files
from gymrail.errors import InputError
from gymrail.models.model import function_call, message
from tests.core.data.recorded import looked_up, rows_of, said, write_run

TASKS = [f"Task number {number}?" for number in range(60)]
KINDS = [Sft(), Sft(per="step"), Dpo(), Kto(), Prm(), Rft()]
ASKED = "How many of the seven hundred apples in the old barn were red when the farmer counted them on Sunday?"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Sixty tasks, two rollouts each, that lie apart."""
    return write_run(
        tmp_path / "run",
        *(looked_up("x", "X", "right", task=task) for task in TASKS),
        *(looked_up("yy", "Y", "wrong", task=task, reward=0.0, repeat=1) for task in TASKS),
    )


def by_split(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {split: rows_of(folder / f"{split}.jsonl") for split in ("train", "validation")}


def task_of(row: dict[str, Any]) -> str:
    lineage = row.get("lineage") or row["_lineage"]
    return lineage.get("chosen", lineage)["task"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_task_is_on_both_sides_and_every_kind_puts_it_on_the_same(source: Path, tmp_path: Path, kind: Any) -> None:
    summary = export([source], tmp_path / "out", kind, validation=0.3)
    written = by_split(tmp_path / "out")
    tasks = {split: {task_of(row) for row in rows} for split, rows in written.items()}
    assert not tasks["train"] & tasks["validation"]
    assert {split: len(found) for split, found in tasks.items()} == {"train": 43, "validation": 17}
    assert summary["splits"] == {split: len(rows) for split, rows in written.items()}
    assert sum(summary["splits"].values()) == summary["rows"]
    assert "| validation | " in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    export([source], tmp_path / "sft", Sft(), validation=0.3)
    assert tasks["validation"] == {task_of(row) for row in by_split(tmp_path / "sft")["validation"]}


def test_a_task_is_where_gymrail_data_split_puts_it(source: Path, tmp_path: Path) -> None:
    export([source], tmp_path / "out", Rft(), validation=0.3)
    export([source], tmp_path / "tasks", Rft())
    rows = [orjson.loads(line) for line in (source / "rollouts.jsonl").read_bytes().splitlines()]
    (tmp_path / "raw.jsonl").write_bytes(
        b"".join(orjson.dumps({"responses_create_params": row["responses_create_params"]}) + b"\n" for row in rows)
    )
    for name, file in (("raw", "raw.jsonl"), ("split", "tasks/train.jsonl")):
        split_files([tmp_path / file], tmp_path / name, {"train": 0.7, "validation": 0.3})
    exported, raw, split = (
        {row["responses_create_params"]["input"] for row in by_split(tmp_path / name)["validation"]}
        for name in ("out", "raw", "split")
    )
    assert exported == raw == split != set()


def test_tasks_that_ask_the_same_go_together_whatever_their_ids_are(tmp_path: Path) -> None:
    def answered(number: int, text: str, repeat: int) -> Rollout:
        made = said("A", repeat=repeat)
        made.task = Task.ask(text, parameters={"tools": []}, answer=number, note=repeat)
        made.conversation = [*made.task.input_items, message("A")]
        made.id = f"{number}-{repeat}"
        return made

    texts = [f"How much is {number} + {number}?" for number in range(40)]
    twins = [f" {text.upper()}  " for text in texts]
    made = [answered(n, text, repeat) for repeat, row in enumerate((texts, twins)) for n, text in enumerate(row)]
    export([write_run(tmp_path / "run", *made)], tmp_path / "out", Sft(), validation=0.4)
    sides = {
        split: {" ".join(row["messages"][0]["content"].casefold().split()) for row in rows}
        for split, rows in by_split(tmp_path / "out").items()
    }
    assert not sides["train"] & sides["validation"]
    assert len(sides["train"]) + len(sides["validation"]) == 40


def test_rollouts_of_another_program_go_by_what_was_asked_and_not_by_their_verdicts(
    source: Path, tmp_path: Path
) -> None:
    rows = [orjson.loads(line) for line in (source / "rollouts.jsonl").read_bytes().splitlines()]
    file = tmp_path / "theirs.jsonl"
    kept = ("responses_create_params", "response", "reward", "_ng_task_index", "_ng_rollout_index")
    file.write_bytes(
        b"".join(
            orjson.dumps({name: row[name] for name in kept} | {"extracted": number}) + b"\n"
            for number, row in enumerate(rows)
        )
    )
    export([file], tmp_path / "out", Sft(), validation=0.3)
    asked = {
        split: {row["messages"][0]["content"] for row in rows} for split, rows in by_split(tmp_path / "out").items()
    }
    assert not asked["train"] & asked["validation"]
    assert len(asked["train"] | asked["validation"]) == 60


EXPORTS = [(kind, "trl") for kind in KINDS] + [(Sft(), "sharegpt"), (Dpo(), "nemo-rl"), (Dpo(rule="step"), "trl")]


@pytest.mark.parametrize(("kind", "destination"), EXPORTS)
def test_an_export_that_is_split_afterwards_keeps_its_tasks_together_too(
    source: Path, tmp_path: Path, kind: Any, destination: str
) -> None:
    export([source], tmp_path / "out", kind, destination=destination)
    split_files([tmp_path / "out/train.jsonl"], tmp_path / "split", {"train": 0.6, "validation": 0.4})
    tasks = [{task_of(row) for row in rows} for rows in by_split(tmp_path / "split").values()]
    assert not tasks[0] & tasks[1]
    assert len(tasks[0] | tasks[1]) == 60


@pytest.mark.parametrize(("kind", "destination"), [(Sft(), "trl"), (Sft(), "sharegpt"), (Kto(), "trl")])
def test_what_a_benchmark_holds_is_found_in_an_export_s_conversations(
    tmp_path: Path, kind: Any, destination: str
) -> None:
    benchmark = tmp_path / "bench.jsonl"
    benchmark.write_bytes(orjson.dumps({"problem": ASKED}) + b"\n")
    source = write_run(tmp_path / "run", said("3", task=f"Now: {ASKED}"), *(said("A", task=task) for task in TASKS))
    export([source], tmp_path / "out", kind, destination=destination)
    index = BenchmarkIndex.read([benchmark])
    found = [index.overlap(row) for row in rows_of(tmp_path / "out")]
    assert [overlap is not None for overlap in found] == [True] + [False] * 60


def test_rows_that_ask_nothing_are_bad_where_a_benchmark_is_looked_for(tmp_path: Path) -> None:
    rows = [{"question": f"{number}?"} for number in range(50)] + [{"tokens": [1, number]} for number in range(20)]
    file, benchmark = tmp_path / "rows.jsonl", tmp_path / "bench.jsonl"
    file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    benchmark.write_bytes(orjson.dumps({"problem": ASKED}) + b"\n")
    index = BenchmarkIndex.read([benchmark])
    with pytest.raises(InputError, match=r"rows\.jsonl, line \d\d: has no prompt and no question; .* --field NAME"):
        split_files([file], tmp_path / "out", {"train": 0.5, "validation": 0.5}, benchmarks=index)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["jsonl", "parquet", "dataset"])
def test_datasets_loads_both_splits_of_every_format(
    source: Path, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    for kind in (Sft(), Dpo(with_margin=True)):
        summary = export([source], tmp_path / kind.name, kind, format=format, validation=0.3)
        if format == "dataset":
            loaded = datasets.load_from_disk(str(tmp_path / kind.name))
        else:
            loaded = datasets.load_dataset(str(tmp_path / kind.name))
        assert isinstance(loaded, datasets.DatasetDict)
        assert {split: rows.num_rows for split, rows in loaded.items()} == summary["splits"]


def test_a_picture_on_one_side_alone_gives_both_splits_the_same_columns(tmp_path: Path) -> None:
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Er"
        "kJggg=="
    )
    source = write_run(tmp_path / "run", *(said("A", task=task) for task in TASKS))
    plain = by_split(Path(export([source], tmp_path / "plain", Sft(), validation=0.3)["output"]))
    pictured = plain["validation"][0]["messages"][0]["content"]
    shown = {
        "type": "function_call_output",
        "call_id": "c",
        "output": [{"type": "input_image", "detail": "auto", "image_url": pixel}],
    }
    made = [said("A", task=task) for task in TASKS]
    seen = next(rollout for rollout in made if rollout.task.responses_create_params["input"] == pictured)
    seen.conversation[1:1] = [function_call("look_up", "{}", "c"), shown]
    run = write_run(tmp_path / "pictures", *made)
    export([run], tmp_path / "dataset", Sft(), format="dataset", validation=0.3)
    loaded: Any = datasets.load_from_disk(str(tmp_path / "dataset"))
    assert loaded["train"].features == loaded["validation"].features
    assert "images" in loaded["train"].features
    said_by_tools = [entry["content"] for entry in loaded["validation"][0]["messages"] if entry["role"] == "tool"]
    assert said_by_tools == [[{"type": "image", "image": pixel}]]
    export([run], tmp_path / "parquet", Sft(), destination="verl", validation=0.3)
    schemas = [pq.read_schema(tmp_path / "parquet" / f"{split}.parquet") for split in ("train", "validation")]
    assert schemas[0].equals(schemas[1])
    assert "images" in schemas[0].names


@pytest.mark.parametrize("processes", [1, 2])
def test_tasks_that_a_benchmark_has_are_left_out_and_counted(tmp_path: Path, processes: int) -> None:
    benchmark = tmp_path / "bench.jsonl"
    benchmark.write_bytes(orjson.dumps({"problem": ASKED, "answer": 3}) + b"\n")
    source = write_run(
        tmp_path / "run",
        said("3", task=f"Read this. {ASKED.upper()}!!"),
        said("4", task=f"Read this. {ASKED.upper()}!!", reward=0.0, repeat=1),
        said("clean", task="Another?"),
        said("cleaner", task="Another?", reward=0.0, repeat=1),
    )
    chosen = Selection(benchmarks=(str(benchmark),))
    for kind, rows in ((Sft(), 2), (Dpo(), 1)):
        out = tmp_path / f"{kind.name}{processes}"
        summary = export([source], out, kind, selection=chosen, processes=processes)
        assert summary["rows"] == rows
        assert summary["removed"] == {f"shares text with {benchmark}": 2}
        assert "apples" not in (out / "train.jsonl").read_text(encoding="utf-8")
        assert f"shares text with {benchmark} | 2 |" in (out / "README.md").read_text(encoding="utf-8")
    lost = Selection(benchmarks=(str(tmp_path / "nowhere.jsonl"),))
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        export([source], tmp_path / "none", Sft(), selection=lost, processes=processes)
    assert not (tmp_path / "none").exists()


def test_a_split_that_cannot_be_is_refused(source: Path, tmp_path: Path) -> None:
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(InputError, match=r"it must be above 0 and below 1"):
            export([source], tmp_path / "out", Sft(), validation=share)
    with pytest.raises(InputError, match=r"is one file, and a validation split is another; name a directory"):
        export([source], tmp_path / "out.jsonl", Sft(), validation=0.1)
    alone = write_run(tmp_path / "alone", said("a"), said("b", repeat=1))
    with pytest.raises(InputError, match=r"None of 2 rows falls to (train|validation) with validation=0\.5"):
        export([alone], tmp_path / "out", Sft(), validation=0.5)
    assert not (tmp_path / "out").exists()
