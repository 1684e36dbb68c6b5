"""Copy-on-write tables: loaded once, shared by every episode; an episode keeps what it changed and nothing more.

base = Table("task_id", [{"task_id": "1", "board": "Design"}])     # once per process
tasks = Sheet(base)                                                # in `seed`: costs nothing
tasks.put("1", "board", "Back end")
changes = row_changes("tasks", tasks.touched(), rules)             # in `verify`: gymrail.verifiers.state
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from gymrail.verifiers.state import Pair

Row = dict[str, Any]
"""Never changed in place: an update puts another row in its stead."""


class Entry(NamedTuple):
    """A row, and its searched columns in lower case."""

    row: Row
    text: str


class Table:
    """A table as it was loaded. It has no `__dict__`: views of an episode's state leave it out."""

    __slots__ = ("entries", "key", "positions", "searched")

    def __init__(self, key: str, rows: Iterable[Row], searched: tuple[str, ...] = ()) -> None:
        self.key = key
        self.searched = searched
        self.entries = tuple(map(self.entry, rows))
        self.positions: dict[str, list[int]] = {}
        for position, entry in enumerate(self.entries):
            self.positions.setdefault(entry.row[key], []).append(position)

    def entry(self, row: Row) -> Entry:
        return Entry(row, " ".join(str(row[column]) for column in self.searched).lower())


class Sheet:
    """One episode's view of a table."""

    def __init__(self, base: Table) -> None:
        self.base = base
        self.changed: dict[int, Entry | None] = {}
        """What stands in place of loaded rows, by position, and new rows behind them; None where one is deleted."""
        self._end = len(base.entries)

    @property
    def entries(self) -> Sequence[Entry]:
        """The rows as they are now, new ones last."""
        if not self.changed:
            return self.base.entries
        kept = [self.changed.get(position, entry) for position, entry in enumerate(self.base.entries)]
        kept += [entry for position, entry in self.changed.items() if position >= len(self.base.entries)]
        return [entry for entry in kept if entry is not None]

    @property
    def rows(self) -> Iterator[Row]:
        return (entry.row for entry in self.entries)

    def get(self, id: str) -> Row | None:
        """Return the first row of that id."""
        return next((row for _, row in self._found(id)), None)

    def put(self, id: str, column: str, value: str) -> None:
        """Set one column of every row of that id."""
        for position, row in list(self._found(id)):
            self.changed[position] = self.base.entry({**row, column: value})

    def delete(self, id: str) -> bool:
        """Delete every row of that id; False where there is none."""
        found = dict.fromkeys(position for position, _ in self._found(id))
        self.changed.update(found)
        return bool(found)

    def append(self, row: Row) -> None:
        self.changed[self._end] = self.base.entry(row)
        self._end += 1

    def next_id(self) -> int:
        """One more than the greatest id there is, ids being compared as text.

        Raises:
            ValueError: that id is no number, or there is none.
        """
        return int(max(row[self.base.key] for row in self.rows)) + 1

    def touched(self) -> Iterator[Pair]:
        """Yield each row that was changed, made or deleted, before and after."""
        for position, entry in self.changed.items():
            is_new = position >= len(self.base.entries)
            yield None if is_new else self.base.entries[position].row, entry.row if entry else None

    def _found(self, id: str) -> Iterator[tuple[int, Row]]:
        """The rows of that id, in their order; an update may have given a row another id."""
        loaded = self.base.positions.get(id, ())
        for position in sorted({*loaded, *self.changed}) if self.changed else loaded:
            entry = self.changed[position] if position in self.changed else self.base.entries[position]
            if entry is not None and entry.row[self.base.key] == id:
                yield position, entry.row
