"""Tasks that stand in two splits: what is trained on must not be what is measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from gymrail.data.content import content_hash, row_hash
from gymrail.data.hash_table import HashTable


class SplitOverlaps:
    """Counts rows that ask what a row of an earlier split asks; some 25 bytes a row."""

    def __init__(self, splits: Iterable[str]) -> None:
        splits = list(splits)
        self._tables = {split: HashTable() for split in splits} if len(splits) > 1 else {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, split: str, values: Mapping[str, Any], *, is_generated: bool = False) -> None:
        """Look for a row's task in the other splits, and remember it.

        Args:
            is_generated: the row is its task and nothing else, so another field is another task: one question about
                another database. In files, fields beside question and answer are mostly ids and notes.
        """
        if not self._tables:
            return
        key = row_hash(values) if is_generated else content_hash(values)
        for other, table in self._tables.items():
            if other != split and key in table:
                self._counts[split, other] += 1
        self._tables[split].add(key)

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {"split": split, "also_in": other, "rows": count} for (split, other), count in sorted(self._counts.items())
        ]

    def warnings(self) -> list[str]:
        return [
            f"{count} rows of {split} ask the same as rows of {other}, with the same answer, so what one measures "
            "may be known from the other; `gymrail data split` keeps them apart."
            for (split, other), count in sorted(self._counts.items())
        ]
