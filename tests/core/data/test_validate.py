"""Validating files: bad rows, what stands twice, what two files share, what a benchmark has too."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from gymrail.data.contamination import BenchmarkIndex
from gymrail.data.prompts import Prompt, PromptConfig
from gymrail.data.statistics import RowStatistics
from gymrail.data.validate import validate
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec

MakeQuiz = Callable[..., EnvironmentSpec]


def write(path: Path, *rows: object) -> Path:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else orjson.dumps(row)) + b"\n" for row in rows))
    return path


def task(text: str, answer: object = "A", **fields: object) -> dict[str, object]:
    return {"responses_create_params": {"input": text}, "answer": answer, **fields}


def test_good_files_pass(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.jsonl", task(name), task(f"{name}?")) for name in ("a", "b")]
    found = validate(files, make_quiz("quiz"))
    assert found.passed
    assert found.to_json()["rows"] == {str(file): 2 for file in files}


def test_problems_have_their_file_line_field_and_value(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", task("1"), task("2", 5, points="x"), b"no json")
    found = validate([file], make_quiz("quiz"))
    assert (found.passed, found.bad_rows) == (False, 2)
    assert [(p["line"], p["field"], p["value"]) for p in found.to_json()["problems"]] == [
        (2, "answer", 5), (2, "points", "x"), (3, None, "no json")
    ]  # fmt: skip
    assert {p["file"] for p in found.to_json()["problems"]} == {str(file)}


def test_duplicates_and_overlaps_name_the_row_that_came_first(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", task("What?"), task("Who?"), task("  WHAT?", id=7), task("What?", "B"))
    two = write(tmp_path / "two.jsonl", task("who?"))
    three = write(tmp_path / "three.jsonl", task("Why?"), task("why?"))
    found = validate([one, two, three], make_quiz("quiz"))
    assert (found.duplicates, found.overlaps, found.bad_rows) == (2, 1, 0)
    assert [str(problem) for problem in [*found.repeated, *found.shared]] == [
        f"{one}, line 3: asks the same as {one}, line 1, with the same answer",
        f"{three}, line 2: asks the same as {three}, line 1, with the same answer",
        f"{two}, line 1: asks the same as {one}, line 2, with the same answer",
    ]
    assert found.to_json()["overlapping_files"] == [{"files": [str(one), str(two)], "rows": 1}]


def test_raw_rows_are_held_against_the_environment_with_their_prompt(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"q": "Who?", "answer": "A"}, {"answer": "B"})
    found = validate([file], make_quiz("quiz"), prompt=Prompt(PromptConfig(user="{q}"), "p.yaml"))
    assert [(problem.line, problem.field) for problem in found.problems] == [(2, "q")]


def test_a_benchmark_is_looked_for(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    text = "How many of the seven hundred apples in the old barn were red when they were counted?"
    bench = BenchmarkIndex.read([write(tmp_path / "bench.jsonl", {"question": text})])
    found = validate([write(tmp_path / "a.jsonl", task("?"), task(f"So: {text}"))], make_quiz("q"), benchmarks=bench)
    assert (found.contaminated, found.passed) == (1, False)
    assert f"line 2: shares 5 of 6 n-grams with {tmp_path / 'bench.jsonl'}, line 1" in str(found.benchmarked[0])


def test_a_file_that_is_empty_or_missing_is_no_pass(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no rows"):
        validate([write(tmp_path / "a.jsonl")], make_quiz("quiz"))
    with pytest.raises(InputError, match="Cannot read"):
        validate([tmp_path / "none.jsonl"], make_quiz("quiz"))


def test_the_number_of_different_strings_is_exact_while_small_and_near_when_large() -> None:
    statistics = RowStatistics()
    for number in range(60_000):
        statistics.add({"responses_create_params": {"input": "?"}, "few": str(number % 900), "many": str(number)})
    found = statistics.to_json()
    assert found["few"] == {"unique_count": 900, "total_count": 60_000}
    assert found["many"]["unique_count_is_estimated"] is True
    assert found["many"]["unique_count"] == pytest.approx(60_000, rel=0.03)
