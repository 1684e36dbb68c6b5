"""Contamination: whether tasks repeat what stands in benchmarks, by word n-grams.

    index = BenchmarkIndex.read([Path("aime24.jsonl")])
    overlap = index.overlap(row)        # None, or which benchmark row shares how many of the row's n-grams

As in the report on GPT-3 (Brown et al. 2020, appendix C), texts are compared as words without capitals and punctuation,
13 at a time; a benchmark text of 8 to 12 words is looked for as one n-gram, and an n-gram that stands in more than 10
rows of a benchmark is its boilerplate and counts for nothing. A text of fewer than 8 words says too little inside
another: it must be the whole text. In Chinese and Japanese each character counts as a word.

Covers: copies, also within longer texts, with other capitals, punctuation and blanks.
Does not cover: translations, paraphrases, pictures, scripts without blanks between words such as Thai.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gymrail.data.content import NoSuchField, question_of, texts_of
from gymrail.data.hash_table import HashTable
from gymrail.data.rows import Problem, read_raw
from gymrail.errors import InputError

NGRAM = 13
SHORTEST = 8
BOILERPLATE = 10
_BITS = (1 << 64) - 1
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_ASCII_WORDS = str.maketrans({chr(code): " " for code in range(128) if not chr(code).isalnum()})


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a row shares with a benchmark."""

    benchmark: str
    line: int
    """Of the benchmark's first row that shares something."""
    shared: int
    """N-grams of the row that stand in a benchmark, or 1 for a short text that is the same as a whole."""
    of: int
    """N-grams of the row."""
    text: str
    """The first that is shared, as words."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class BenchmarkIndex:
    """The n-grams of benchmarks, as hashes: some 30 bytes each, whatever is checked against them."""

    def __init__(self, *, ngram: int = NGRAM, fields: Sequence[str] = ()) -> None:
        if ngram < SHORTEST:
            raise InputError(f"An n-gram of {ngram} words is in too many texts; it must have {SHORTEST} or more.")
        self.ngram = ngram
        self.rows = 0
        self.boilerplate = 0
        """N-grams that count for nothing, since they stand in many rows."""
        self._fields = fields
        self._files: list[str] = []
        self._starts: list[int] = []
        self._lines = array("I")
        self._grams: dict[int, _Grams] = {}
        self._wholes = _Grams()

    @classmethod
    def read(cls, files: Iterable[Path], *, ngram: int = NGRAM, fields: Sequence[str] = ()) -> BenchmarkIndex:
        """Index benchmark files: JSONL with tasks, or with fields such as `question` or `problem`.

        Args:
            fields: where the rows have their texts, if not in the prompt or in a field with such a name.

        Raises:
            InputError: a file cannot be read, or a row is bad or has no text.
        """
        index = cls(ngram=ngram, fields=fields)
        for file in files:
            index._add_file(file)
        index._forget_boilerplate()
        return index

    def overlap(self, values: Mapping[str, Any]) -> Overlap | None:
        """Return what a row shares with a benchmark.

        Raises:
            NoSuchField: the row has none of the fields that the index was made for, or nothing that it asks.
        """
        first, where = "", -1
        shared = total = 0
        texts = texts_of(values, self._fields)
        if not texts and question_of(values) is None:
            raise NoSuchField("has no prompt and no question; say which field is compared: --field NAME")
        for text in dict.fromkeys(texts):
            words = words_of(text)
            if len(words) < SHORTEST:
                total += 1
                row = self._wholes.row_of(hash(words) & _BITS) if words else -1
                if row >= 0:
                    shared += 1
                    first, where = first or " ".join(words), row if where < 0 else where
                continue
            for size, grams in self._grams.items():
                found = grams.found(words, size)
                if size == self.ngram:
                    total += max(0, len(words) - size + 1)
                if found:
                    shared += len(found)
                    place, row = found[0]
                    first, where = first or " ".join(words[place : place + size]), row if where < 0 else where
        if not shared:
            return None
        file = bisect_right(self._starts, where) - 1
        return Overlap(self._files[file], self._lines[where], shared, max(total, shared), first)

    def _add_file(self, file: Path) -> None:
        self._files.append(str(file))
        self._starts.append(self.rows)
        before = self.rows
        for found in read_raw(file):
            if isinstance(found, Problem):
                raise InputError(f"Benchmark {found}.")
            try:
                texts = texts_of(found.values, self._fields)
            except NoSuchField as error:
                raise InputError(f"Benchmark {found.problem(str(error))}.") from None
            if not texts:
                raise InputError(
                    f"Benchmark {found.problem('has no prompt and no question')}; "
                    "say which field is compared: --field NAME."
                )
            self._lines.append(found.line)
            self._add_row(texts)
            self.rows += 1
        if self.rows == before:
            raise InputError(f"The benchmark '{file}' has no rows.")

    def _add_row(self, texts: Iterable[str]) -> None:
        row = self.rows
        by_size: dict[int, set[int]] = {}
        for text in texts:
            words = words_of(text)
            size = min(len(words), self.ngram)
            if size >= SHORTEST:
                by_size.setdefault(size, set()).update(hash(gram) & _BITS for gram in _ngrams(words, size))
            elif words:
                self._wholes.add(hash(words) & _BITS, row)
        for size, hashes in by_size.items():
            grams = self._grams.setdefault(size, _Grams())
            for key in hashes:
                grams.add(key, row)

    def _forget_boilerplate(self) -> None:
        # A short text that stands in many rows is still a whole question; it stays.
        for grams in self._grams.values():
            self.boilerplate += grams.finish()
        self._wholes.finish(keep_all=True)


class _Grams:
    """N-grams of one length: the row each was first in, and in how many rows it is."""

    def __init__(self) -> None:
        self._table = HashTable()
        self._rows = array("I")
        self._counts = bytearray()
        self._flags = bytearray(1)
        """One byte for many hashes, so that most of those that are not there need no search."""

    def add(self, key: int, row: int) -> None:
        number = self._table.add(key)
        if number == len(self._rows):
            self._rows.append(row)
            self._counts.append(1)
        elif self._counts[number] <= BOILERPLATE:
            self._counts[number] += 1

    def finish(self, *, keep_all: bool = False) -> int:
        """Get ready to search; return how many n-grams are boilerplate."""
        size = 1 << max(10, (4 * len(self._table)).bit_length())
        self._flags = bytearray(size)
        dropped = 0
        for number, key in enumerate(self._table.keys):
            if keep_all or self._counts[number] <= BOILERPLATE:
                self._flags[key & (size - 1)] = 1
            else:
                dropped += 1
        if keep_all:
            self._counts = bytearray(len(self._counts))
        return dropped

    def row_of(self, key: int) -> int:
        """Return the first row with this hash; -1 where there is none, or where it is boilerplate."""
        number = self._table.find(key)
        return self._rows[number] if number >= 0 and self._counts[number] <= BOILERPLATE else -1

    def found(self, words: tuple[str, ...], size: int) -> list[tuple[int, int]]:
        """Return (place, benchmark row) of every n-gram that is there."""
        flags, mask = self._flags, len(self._flags) - 1
        candidates = [
            (place, key) for place, key in enumerate(map(hash, _ngrams(words, size))) if flags[key & mask]
        ]  # fmt: skip
        return [(place, row) for place, key in candidates if (row := self.row_of(key & _BITS)) >= 0]


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text without capitals and punctuation."""
    if text.isascii():
        return tuple(text.lower().translate(_ASCII_WORDS).split())
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _ngrams(words: tuple[str, ...], size: int) -> Iterator[tuple[str, ...]]:
    return zip(*[words[start:] for start in range(size)], strict=False)
