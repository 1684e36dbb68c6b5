import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import orjson
import pytest

from gymrail.data.hub import read_hub
from gymrail.data.sources import read_dataset
from gymrail.errors import InputError
from gymrail.spec import DatasetEntry, EnvironmentSpec, Manifest
from gymrail.task import Task

TOOL = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    "strict": True,
}
ROWS = [
    {"responses_create_params": {"input": "1?"}, "answer": "A", "points": 2},
    {
        "responses_create_params": {"input": [{"role": "user", "content": "2?"}], "tools": [TOOL]},
        "answer": "B",
        "verifier_metadata": {"x": None},
    },
]


class QuizTask(Task):
    answer: str
    points: int = 1


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def entry(**values: object) -> DatasetEntry:
    return DatasetEntry.model_validate({"name": "quiz", "split": "train", "source": "huggingface", **values})


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))


def test_a_jsonl_file_inside_a_dataset_is_read_unchanged(tmp_path: Path) -> None:
    write(tmp_path / "quiz" / "data" / "train.jsonl")
    tasks = list(read_hub(entry(path="quiz", file="data/train.jsonl"), QuizTask, tmp_path))
    assert [task.row for task in tasks] == ROWS


def test_a_folder_of_files_is_read_through_datasets(tmp_path: Path) -> None:
    write(tmp_path / "quiz" / "train.jsonl")
    tasks = list(read_hub(entry(path="quiz"), QuizTask, tmp_path))
    assert [task.responses_create_params for task in tasks] == [row["responses_create_params"] for row in ROWS]
    assert [(task.answer, task.points) for task in tasks] == [("A", 2), ("B", 1)]


def test_a_saved_dataset_loses_the_nulls_that_arrow_puts_into_structs(tmp_path: Path) -> None:
    rows = [
        {"responses_create_params": {"input": "1?", "temperature": None, "tools": []}, "answer": "A", "points": None},
        {"responses_create_params": {"input": "2?", "temperature": 0.5, "tools": [TOOL]}, "answer": "B", "points": 3},
    ]
    saved = datasets.Dataset.from_list(rows)
    assert saved[0]["responses_create_params"]["temperature"] is None
    saved.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": saved}).save_to_disk(tmp_path / "several")
    for path in ("one", "several"):
        first, second = read_hub(entry(path=path), QuizTask, tmp_path)
        assert first.responses_create_params == {"input": "1?", "tools": []}
        assert first.points == 1
        assert second.responses_create_params["tools"] == [TOOL]


def test_a_parquet_file_is_picked_by_name(tmp_path: Path) -> None:
    (tmp_path / "quiz").mkdir()
    datasets.Dataset.from_list([{"responses_create_params": {"input": "1?"}, "answer": "A"}]).to_parquet(
        tmp_path / "quiz" / "b.parquet"
    )
    (task,) = read_hub(entry(path="quiz", file="b.parquet", split="validation"), QuizTask, tmp_path)
    assert task.answer == "A"


def test_a_split_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "quiz" / "train.jsonl")
    with pytest.raises(InputError, match=r"Dataset quiz has no split 'test'\. Allowed: train"):
        list(read_hub(entry(path="quiz", split="test"), QuizTask, tmp_path))


def test_a_bad_row_of_a_dataset_names_dataset_row_field_and_value(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"responses_create_params": {"input": "1?"}, "answer": 5}]).save_to_disk(
        tmp_path / "quiz"
    )
    with pytest.raises(
        InputError, match=r"dataset quiz, row 0: field 'answer': Input should be a valid string \(value 5\)"
    ):
        list(read_hub(entry(path="quiz"), QuizTask, tmp_path))


def test_a_file_that_a_dataset_does_not_have_is_named(tmp_path: Path) -> None:
    (tmp_path / "quiz").mkdir()
    with pytest.raises(InputError, match=r"quiz/none.jsonl"):
        list(read_hub(entry(path="quiz", file="none.jsonl"), QuizTask, tmp_path))
    with pytest.raises(InputError, match=r"Dataset 'quiz' \(quiz\) with file 'none.parquet' cannot be read"):
        list(read_hub(entry(path="quiz", file="none.parquet"), QuizTask, tmp_path))


def test_an_entry_without_a_path_is_refused() -> None:
    with pytest.raises(InputError, match="Dataset 'quiz' has no path"):
        list(read_hub(entry(), QuizTask))


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "quiz" / "train.jsonl")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'gymrail\[data\]'"):
        list(read_hub(entry(path="quiz"), QuizTask, tmp_path))


def test_a_manifests_file_is_found_beside_the_environment(make_quiz: Callable[..., EnvironmentSpec]) -> None:
    spec = make_quiz("quiz", 3)
    tasks = list(spec.tasks("train"))
    assert [task.row["answer"] for task in tasks] == ["0", "1", "2"]
    assert {type(task) for task in tasks} == {spec.cls.task_type}


def test_a_manifests_hub_dataset_is_read_alike(make_quiz: Callable[..., EnvironmentSpec]) -> None:
    spec = make_quiz("quiz", 3, source="huggingface", path=".", file="train.jsonl")
    assert [task.row["answer"] for task in spec.tasks("train")] == ["0", "1", "2"]


def test_a_manifests_generator_is_asked(sums: EnvironmentSpec) -> None:
    generated = DatasetEntry(name="made", split="train", source="generator", size=4)
    spec = EnvironmentSpec("sums", sums.cls, Manifest(datasets=[generated]))
    assert [task.id for task in read_dataset(generated, spec)] == [
        sums.generate("train", index).id for index in range(4)
    ]


def test_a_dataset_without_a_path_names_the_environment(make_quiz: Callable[..., EnvironmentSpec]) -> None:
    with pytest.raises(InputError, match="quiz: dataset 'train' has no path"):
        list(make_quiz("quiz", 3, path=None).tasks("train"))
