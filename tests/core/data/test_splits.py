"""Splits: no task on two sides, no row that moves, nothing lost."""

from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymrail.data.contamination import BenchmarkIndex
from gymrail.data.content import content_hash
from gymrail.data.splits import Splitter, split_files
from gymrail.errors import InputError

SHARES = {"train": 0.6, "validation": 0.3, "test": 0.1}
ROWS = st.lists(
    st.fixed_dictionaries(
        {"question": st.text("ab ", max_size=4), "answer": st.integers(0, 2), "group": st.integers(0, 9)}
    ),
    max_size=60,
)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def read(path: Path) -> list[dict]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def numbered(count: int, **fields: object) -> list[dict]:
    return [{"question": f"What is {number} + {number}?", "answer": 2 * number, **fields} for number in range(count)]


@given(rows=ROWS, more=ROWS, seed=st.integers(0, 5), by=st.sampled_from([None, "group"]))
def test_a_row_stays_where_it_is_when_others_come(rows: list, more: list, seed: int, by: str | None) -> None:
    splitter = Splitter(SHARES, by=by, seed=seed)
    before = [splitter.split_of(row) for row in rows]
    later = Splitter(SHARES, by=by, seed=seed)
    assert [later.split_of(row) for row in [*more, *rows]][len(more) :] == before


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, by=st.sampled_from([None, "group"]))
def test_no_task_and_no_group_is_on_two_sides_and_no_row_is_lost(tmp_path_factory, rows: list, by: str | None) -> None:
    folder = tmp_path_factory.mktemp("split")
    rows = [*rows, *numbered(60, group=None)]
    rows = [{**row, "group": number if row["group"] is None else row["group"]} for number, row in enumerate(rows)]
    file = write(folder / "all.jsonl", rows)
    report = split_files([file], folder / "out", {"train": 0.5, "validation": 0.5}, by=by)
    train, validation = (read(folder / "out" / f"{name}.jsonl") for name in ("train", "validation"))
    left_out = [entry["row"] for entry in read(folder / "out/left_out.jsonl")]
    assert {content_hash(row) for row in train} & {content_hash(row) for row in validation} == set()
    if by is not None:
        assert {row["group"] for row in train} & {row["group"] for row in validation} == set()
    else:
        assert left_out == []
    assert sorted(map(orjson.dumps, [*train, *validation, *left_out])) == sorted(map(orjson.dumps, rows))
    assert report.rows_read == len(rows) == sum(report.splits.values()) + report.left_out


def test_shares_are_met_and_lines_are_copied_as_they_stand(tmp_path: Path) -> None:
    lines = [b'{ "question":"Number %d?",  "answer": 123456789012345678901234567890.00 }' % n for n in range(5000)]
    file = tmp_path / "all.jsonl"
    file.write_bytes(b"\n".join(lines))
    report = split_files([file], tmp_path / "out", SHARES, seed=3)
    assert {name: round(count / 5000, 1) for name, count in report.splits.items()} == SHARES
    out = [line for name in SHARES for line in (tmp_path / f"out/{name}.jsonl").read_bytes().splitlines()]
    assert sorted(out) == sorted(lines)
    again = split_files([file], tmp_path / "again", SHARES, seed=3)
    assert (tmp_path / "again/train.jsonl").read_bytes() == (tmp_path / "out/train.jsonl").read_bytes()
    assert again.splits != split_files([file], tmp_path / "other", SHARES, seed=4).splits


def test_questions_that_differ_in_blanks_and_capitals_alone_go_together() -> None:
    splitter = Splitter({"train": 0.5, "validation": 0.5})
    for row in numbered(200):
        twin = {"question": f"  {row['question'].upper()} ", "answer": row["answer"], "id": 7}
        assert splitter.split_of(twin) == splitter.split_of(row)


def test_one_question_asked_of_many_states_is_many_tasks() -> None:
    rows = [{"responses_create_params": {"input": "Win the game."}, "seed": seed} for seed in range(50)]
    assert {Splitter({"train": 0.5, "validation": 0.5}).split_of(row) for row in rows} == {"train", "validation"}


def test_a_row_without_its_group_is_bad(tmp_path: Path) -> None:
    file = write(
        tmp_path / "all.jsonl", [*numbered(50, document={"id": "x"}), {"question": "?", "dokument": {"id": 1}}]
    )
    with pytest.raises(InputError, match=r"line 51: field 'document.id': the row lacks it.*\n?.*--skip-bad"):
        split_files([file], tmp_path / "out", by="document.id")
    assert not (tmp_path / "out").exists()


def test_contaminated_rows_are_reported_kept_or_dropped_and_counted(tmp_path: Path) -> None:
    asked = "How many of the seven hundred apples in the old barn were red when the farmer counted them on Sunday?"
    rows = [*numbered(300), {"question": f"Read this. {asked.upper()}!! Then answer.", "answer": 3}]
    file = write(tmp_path / "all.jsonl", rows)
    benchmarks = BenchmarkIndex.read([write(tmp_path / "bench.jsonl", [{"problem": asked, "answer": 3}])])
    shares = {"train": 0.99, "validation": 0.01}
    kept = split_files([file], tmp_path / "kept", shares, benchmarks=benchmarks)
    dropped = split_files([file], tmp_path / "dropped", shares, benchmarks=benchmarks, drop_contaminated=True)
    assert (kept.contaminated, dropped.contaminated) == (1, 1)
    assert kept.splits["train"] == dropped.splits["train"] + 1
    (entry,) = read(tmp_path / "dropped/contaminated.jsonl")
    assert (entry["line"], entry["row"], entry["overlap"]["line"]) == (301, rows[-1], 1)
    assert entry["overlap"]["shared"] == len(asked.split()) - 12


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"train": 0.9}, "add up to 0.9; they must add up to 1"),
        ({"trian": 1.0}, "Did you mean 'train'?"),
        ({"train": 1.0, "validation": 0.0}, "share of validation is 0.0"),
    ],
)
def test_shares_that_make_no_whole_are_refused(tmp_path: Path, shares: dict, message: str) -> None:
    with pytest.raises(InputError) as refused:
        split_files([write(tmp_path / "all.jsonl", numbered(5))], tmp_path / "out", shares)
    assert message in str(refused.value)


def test_a_split_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No row falls to .*1 rows read"):
        split_files([write(tmp_path / "all.jsonl", numbered(1))], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_existing_directory_is_replaced_only_if_asked_and_only_if_it_is_ours(tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", numbered(200))
    split_files([file], tmp_path / "out")
    with pytest.raises(InputError, match="exists already; name another directory, or replace it with --overwrite"):
        split_files([file], tmp_path / "out")
    (tmp_path / "out/extra").touch()
    split_files([file], tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out/extra").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").touch()
    with pytest.raises(InputError, match="--overwrite leaves it alone"):
        split_files([file], tmp_path / "home", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.jsonl", "home", "out"]
