"""Files and rows that an episode left behind, compared with what is expected."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gymrail.bridges.left_behind import file_problems, row_problems
from gymrail.errors import VerifierError


@pytest.mark.parametrize(
    ("wanted", "is_right"),
    [
        ("two\nlines", True),
        ("two lines", False),
        ({"contains": "lines"}, True),
        ({"contains": "Lines"}, False),
        ({"regex": r"two\s+lines"}, True),
        ({"json": {"a": 1}}, False),
        (None, False),
    ],
)
def test_a_file_is_compared_as_its_row_says(tmp_path: Path, wanted: Any, is_right: bool) -> None:
    (tmp_path / "a.txt").write_text("two\nlines\n", encoding="utf-8")
    assert (file_problems(tmp_path, {"a.txt": wanted}) == []) is is_right


def test_json_is_compared_by_value(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"b": [1, 2], "a": 1.0}', encoding="utf-8")
    assert file_problems(tmp_path, {"a.json": {"json": {"a": 1, "b": [1, 2]}}}) == []


def test_a_link_out_of_the_folder_counts_as_missing(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.txt"
    inside.mkdir()
    outside.write_text("secret", encoding="utf-8")
    (inside / "a.txt").symlink_to(outside)
    assert file_problems(inside, {"a.txt": "secret"}) == ["'a.txt' is missing"]
    assert file_problems(inside, {"a.txt": None}) == ["'a.txt' should not be there"]


def test_what_else_is_there_counts_only_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("b", encoding="utf-8")
    (tmp_path / "seeded.txt").write_text("changed", encoding="utf-8")
    assert file_problems(tmp_path, {}) == []
    assert file_problems(tmp_path, {}, seeded={"seeded.txt": "kept"}) == [
        "'seeded.txt' holds 'changed', not 'kept'", "'sub/b.txt' should not be there",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["../a.txt", "/etc/passwd", ""])
def test_an_expected_path_outside_the_folder_is_the_authors_fault(tmp_path: Path, name: str) -> None:
    with pytest.raises(VerifierError, match="give a path inside"):
        file_problems(tmp_path, {name: "x"})


@pytest.mark.parametrize("wanted", [{"like": "x"}, {"contains": "a", "regex": "b"}, 3])
def test_an_expectation_that_means_nothing_is_the_authors_fault(tmp_path: Path, wanted: Any) -> None:
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(VerifierError, match="allowed are"):
        file_problems(tmp_path, {"a.txt": wanted})


def test_rows_are_compared_without_order_unless_it_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE t (x, y); INSERT INTO t VALUES (2, 'b'), (1, 'a'), (1, 'a');")
    connection.close()
    query = "SELECT * FROM t"
    assert row_problems(path, [{"query": query, "rows": [[1, "a"], [1, "a"], [2, "b"]]}]) == []
    assert row_problems(path, [{"query": query, "rows": [[1, "a"], [2, "b"]]}]) != []
    assert row_problems(path, [{"query": query, "rows": [[1, "a"], [1, "a"], [2, "b"]], "ordered": True}]) != []
    assert row_problems(path, [{"query": "SELECT count(*) FROM t", "rows": [["3"]]}]) != []


def test_no_database_and_no_sqlite_file_are_scores(tmp_path: Path) -> None:
    wanted = [{"query": "SELECT 1", "rows": [[1]]}]
    assert row_problems(tmp_path / "a.db", wanted) == ["there is no database 'a.db'"]
    (tmp_path / "a.db").write_text("not a database at all, but long enough to be read as one" * 20, encoding="utf-8")
    assert row_problems(tmp_path / "a.db", [{"query": "SELECT * FROM t", "rows": []}]) != []


def test_a_query_cannot_change_the_database(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sqlite3.connect(path).close()
    path.write_bytes(b"")
    with pytest.raises(VerifierError, match="cannot be run"):
        row_problems(path, [{"query": "CREATE TABLE t (x)", "rows": []}])
