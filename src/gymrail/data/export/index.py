"""The index of an export: one small row for each rollout that may be exported, on disk, so that memory stays flat.

What a rollout is asked beside others is asked here; its line is read again only when it is exported.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from gymrail.data.export.near import Seen
from gymrail.data.export.selection import Selection


class Entry(NamedTuple):
    """What is kept of a rollout."""

    source: int
    number: int
    """Its line."""
    offset: int
    length: int
    environment: str
    task: int
    """A hash of environment and task."""
    reward: float
    size: int
    digest: int | None = None
    """A hash of all that was said; set for exact deduplication."""
    signature: bytes | None = None
    """Set for near deduplication."""


class Place(NamedTuple):
    """Where a chosen rollout's line is."""

    source: int
    number: int
    offset: int
    length: int
    task: int


def hashed(text: str | bytes) -> int:
    """Return a 63-bit hash, the same on every machine."""
    content = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


class Index:
    """A database in one file, which its owner removes."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        for setting in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", "cache_size=-16384"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(
            "CREATE TABLE rollouts (place INTEGER PRIMARY KEY, source INTEGER, number INTEGER, start INTEGER, "
            "length INTEGER, environment TEXT, task INTEGER, reward REAL, size INTEGER, digest INTEGER, signature BLOB)"
        )
        self._database.execute("BEGIN")

    def add(self, entries: Iterable[Entry]) -> None:
        """Add rollouts, in the files' order."""
        self._database.executemany("INSERT INTO rollouts VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", entries)

    def select(self, selection: Selection) -> Counter[str]:
        """Remove what the selection does not keep; return how many each filter removed."""
        removed: Counter[str] = Counter()
        if selection.dedup == "exact":
            ranked = "ROW_NUMBER() OVER (PARTITION BY digest ORDER BY place)"
            removed["exact duplicate"] = self._keep(ranked, "rank <= 1")
        elif selection.dedup == "near":
            removed[f"near duplicate (likeness of {selection.near_threshold:g} or more)"] = self._keep_new(selection)
        best = "ROW_NUMBER() OVER (PARTITION BY task ORDER BY reward DESC, size, place)"
        if selection.best_of is not None:
            removed[f"not among the best {selection.best_of} of its task"] = self._keep(
                best, f"rank <= {int(selection.best_of)}"
            )
        if selection.top_share is not None:
            self._database.create_function("ceil_share", 1, lambda n: math.ceil(selection.top_share * n - 1e-9))
            removed[f"not in the top {selection.top_share:.0%} of its task"] = self._keep(
                best, "rank <= ceil_share(total)", ", COUNT(*) OVER (PARTITION BY task) AS total"
            )
        self._database.create_function(
            "chance", 1, lambda place: hashed(f"{selection.seed}:{place}"), deterministic=True
        )
        if selection.max_per_task is not None:
            drawn = "ROW_NUMBER() OVER (PARTITION BY task ORDER BY chance(place))"
            removed[f"over {selection.max_per_task} of its task"] = self._keep(
                drawn, f"rank <= {int(selection.max_per_task)}"
            )
        if selection.balance is not None:
            column = selection.balance
            (fewest,) = self._database.execute(
                f"SELECT MIN(n) FROM (SELECT COUNT(*) AS n FROM rollouts GROUP BY {column})"
            ).fetchone()
            drawn = f"ROW_NUMBER() OVER (PARTITION BY {column} ORDER BY chance(place))"
            removed[f"balance by {column}: over {fewest}"] = self._keep(drawn, f"rank <= {int(fewest or 0)}")
        return +removed

    def places(self) -> Iterator[Place]:
        """Yield what is left in the files' order."""
        return map(
            Place._make,
            self._database.execute("SELECT source, number, start, length, task FROM rollouts ORDER BY place"),
        )

    def tasks(self) -> Iterator[list[Place]]:
        """Yield what is left by task, in the order in which the tasks came first."""
        self._database.execute("CREATE TABLE tasks AS SELECT task, MIN(place) AS first FROM rollouts GROUP BY task")
        rows = self._database.execute(
            "SELECT source, number, start, length, rollouts.task FROM tasks "
            "JOIN rollouts ON rollouts.task = tasks.task ORDER BY tasks.first, rollouts.place"
        )
        group: list[Place] = []
        for place in map(Place._make, rows):
            if group and group[0].task != place.task:
                yield group
                group = []
            group.append(place)
        if group:
            yield group

    def close(self) -> None:
        """Give the file back."""
        self._database.close()

    def _keep(self, rank: str, condition: str, more: str = "") -> int:
        return self._database.execute(
            "DELETE FROM rollouts WHERE place IN "
            f"(SELECT place FROM (SELECT place, {rank} AS rank{more} FROM rollouts) WHERE NOT ({condition}))"
        ).rowcount

    def _keep_new(self, selection: Selection) -> int:
        seen = Seen(self._database, selection.near_threshold)
        reader = self._database.execute("SELECT place, signature FROM rollouts ORDER BY place")
        known = [place for place, text in reader if not seen.is_new(place, text)]
        self._database.executemany("DELETE FROM rollouts WHERE place = ?", ((place,) for place in known))
        return len(known)
