import gzip
import itertools
from pathlib import Path

import pytest

from gymrail import Task
from gymrail.data.jsonl import read_rows, read_tasks, write_jsonl
from gymrail.errors import InputError


class QuizTask(Task):
    answer: str
    points: int = 1


GOOD = '{"responses_create_params": {"input": "é?"}, "answer": "A", "extra": {"kept": null}}\n'


def test_tasks_are_typed_and_keep_their_row(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text("\ufeff" + GOOD + "\n   \n" + GOOD.rstrip("\n"), encoding="utf-8")
    first, second = read_tasks(path, QuizTask)
    assert first.answer == "A"
    assert first.row == {"responses_create_params": {"input": "é?"}, "answer": "A", "extra": {"kept": None}}
    assert first.id == second.id


def test_compressed_files_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD.encode() * 3))
    assert len(list(read_tasks(path, QuizTask))) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"responses_create_params": {"input": "?"}, "answer": 7}',
            "line 3: field 'answer': Input should be a valid string (value 7).",
        ),
        ('{"responses_create_params": {"input": "?"}}', "line 3: field 'answer': Field required."),
        ('{"answer": "A"}', "line 3: field 'responses_create_params': Field required."),
        (
            '{"responses_create_params": {"input": 5}, "answer": "A"}',
            "'input' is 5; it must be a string or a list of items",
        ),
        (
            '{"responses_create_params": {"inputs": "?"}, "answer": "A"}',
            "'inputs' is no Responses parameter. Did you mean 'input'?",
        ),
        ('{"answer": "A"', "line 3: not valid JSON ("),
        ('["A"]', "line 3: a row must be a JSON object, this is '[\"A\"]'."),
    ],
)
def test_a_bad_row_names_file_line_field_and_value(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(GOOD + "\n" + line + "\n" + GOOD, encoding="utf-8")
    rows = read_tasks(path, QuizTask)
    assert next(rows).answer == "A"
    with pytest.raises(InputError) as raised:
        next(rows)
    assert str(raised.value).startswith(f"{path}, line 3: ")
    assert message in str(raised.value)


def test_a_json_array_is_told_from_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('[\n{"answer": "A"}\n]', encoding="utf-8")
    with pytest.raises(InputError, match="The file is one JSON array; write one object per line"):
        list(read_rows(path))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read '.*missing.jsonl': No such file"):
        list(read_rows(tmp_path / "missing.jsonl"))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(GOOD.encode() * 100)[:-10])
    with pytest.raises(InputError, match=r"Cannot read '.*cut.jsonl.gz': Compressed file ended"):
        list(read_rows(cut))


def test_rows_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(GOOD * 3 + "broken\n", encoding="utf-8")
    assert len(list(itertools.islice(read_tasks(path, QuizTask), 3))) == 3


def test_written_rows_come_back_and_are_counted(tmp_path: Path) -> None:
    rows = [{"a": "é\n"}, {"b": [None, 1.5]}]
    path = tmp_path / "new" / "rows.jsonl"
    assert write_jsonl(iter(rows), path) == 2
    assert [row for _, row in read_rows(path)] == rows


def test_a_file_that_could_not_be_finished_leaves_the_old_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl([{"a": 1}], path)

    def rows():
        yield {"a": 2}
        raise InputError("a bad rollout")

    with pytest.raises(InputError, match="a bad rollout"):
        write_jsonl(rows(), path)
    assert [row for _, row in read_rows(path)] == [{"a": 1}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]
    with pytest.raises(InputError, match="Cannot write"):
        write_jsonl([{}], path / "below" / "a_file.jsonl")
