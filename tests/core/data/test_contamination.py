"""What counts as an overlap with a benchmark, and what does not."""

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymrail.data.contamination import BenchmarkIndex, words_of
from gymrail.data.hash_table import HashTable
from gymrail.errors import InputError

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def index(tmp_path: Path, *questions: str, **options) -> BenchmarkIndex:
    file = tmp_path / "bench.jsonl"
    file.write_bytes(b"".join(orjson.dumps({"question": text, "subject": "math"}) + b"\n" for text in questions))
    return BenchmarkIndex.read([file], **options)


def shared(found: BenchmarkIndex, text: str) -> int:
    overlap = found.overlap({"responses_create_params": {"input": text}})
    return 0 if overlap is None else overlap.shared


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_none(tmp_path: Path) -> None:
    found = index(tmp_path, LONG)
    assert shared(found, "Say: " + " ".join(LONG.split()[:13])) == 1
    assert shared(found, "Say: " + " ".join(LONG.split()[:12])) == 0
    assert shared(found, LONG) == 3
    assert shared(index(tmp_path, LONG, ngram=15), LONG) == 1


def test_capitals_punctuation_blanks_and_wide_letters_do_not_matter(tmp_path: Path) -> None:
    found = index(tmp_path, LONG)
    assert shared(found, LONG.upper().replace(" ", ",\n -- ")) == 3
    assert shared(found, LONG.replace("one", "\uff4f\uff4e\uff45")) == 3
    assert words_of("Don't\u2014stop_it! 3.14 \u00c9T\u00c9") == ("don", "t", "stop", "it", "3", "14", "\u00e9t\u00e9")


def test_a_text_of_eight_to_twelve_words_is_one_ngram(tmp_path: Path) -> None:
    question = "What is the third prime after one hundred and ten"
    found = index(tmp_path, question)
    assert shared(found, f"Think. {question}? Box it.") == 1
    assert shared(found, "What is the third prime after one hundred and nine") == 0


def test_a_short_text_must_be_the_whole_text(tmp_path: Path) -> None:
    found = index(tmp_path, "What is 2 + 2?")
    assert shared(found, "what is 2 2") == 1
    assert shared(found, "Please say: what is 2 + 2?") == 0
    assert shared(found, "math") == 0


def test_chinese_is_compared_by_character(tmp_path: Path) -> None:
    question = "\u4e00\u4e2a\u82f9\u679c\u52a0\u4e24\u4e2a\u82f9\u679c\u662f\u51e0\u4e2a\u82f9\u679c\u5462"
    assert shared(index(tmp_path, question), f"\u8bf7\u95ee{question}\uff1f") > 0


def test_what_stands_in_many_benchmark_rows_is_boilerplate(tmp_path: Path) -> None:
    found = index(tmp_path, *(f"{LONG} and then question {number}" for number in range(11)))
    assert shared(found, LONG) == 0
    assert found.boilerplate >= 3
    assert shared(found, f"{LONG} and then question 7") > 0
    assert shared(index(tmp_path, *([LONG] * 10)), LONG) == 3


def test_the_question_is_looked_at_where_the_prompt_wraps_it(tmp_path: Path) -> None:
    found = index(tmp_path, "What is 2 + 2?")
    row = {"responses_create_params": {"input": "Solve this: What is 2 + 2?"}, "question": "What is 2 + 2?"}
    overlap = found.overlap(row)
    assert overlap is not None
    assert (overlap.text, overlap.line) == ("what is 2 2", 1)


def test_named_fields_are_compared_alone(tmp_path: Path) -> None:
    file = tmp_path / "bench.jsonl"
    file.write_bytes(orjson.dumps({"stem": LONG}) + b"\n")
    with pytest.raises(InputError, match="has no prompt and no question; say which field is compared: --field NAME"):
        BenchmarkIndex.read([file])
    overlap = BenchmarkIndex.read([file], fields=["stem"]).overlap({"stem": LONG, "question": "Other"})
    assert overlap is not None
    with pytest.raises(InputError, match="has no text in 'stm'"):
        BenchmarkIndex.read([file], fields=["stm"])


def test_an_empty_benchmark_and_a_short_ngram_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bench.jsonl").touch()
    with pytest.raises(InputError, match="has no rows"):
        BenchmarkIndex.read([tmp_path / "bench.jsonl"])
    with pytest.raises(InputError, match="must have 8 or more"):
        BenchmarkIndex(ngram=3)


@given(keys=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40), max_size=3000))
def test_a_table_numbers_hashes_in_their_order(keys: list[int]) -> None:
    table, known = HashTable(), {}
    for key in keys:
        assert table.add(key) == known.setdefault(key, len(known))
    assert len(table) == len(known)
    assert [table.find(key) for key in keys] == [known[key] for key in keys]
    assert table.find(2**64 - 3) == known.get(2**64 - 3, -1)
