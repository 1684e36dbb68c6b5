"""A private SQLite database per episode, in memory, started from a template.

    template = Template.from_script("CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT); ...")     # once
    server.seed(template=template)                                                                    # per episode

Covers: statements that never end, endless results, values of any size, files (ATTACH, VACUUM INTO), extensions,
settings, writing through `sql_query`. Does not cover: a fault of SQLite itself; the memory of a single sort.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymrail import ToolError, ToolServer, tool
from gymrail.errors import InputError

_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_WRITES = frozenset(
    {
        sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_CREATE_TRIGGER, sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_DROP_VIEW, sqlite3.SQLITE_DROP_TRIGGER, sqlite3.SQLITE_REINDEX,
    }
)  # fmt: skip
"""Transactions are not among them: each statement is one, so that nothing is left half done."""
_PRAGMAS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"})
_NO_FUNCTIONS = frozenset({"load_extension", "random", "randomblob", "fts3_tokenizer"})
"""The random ones would make a replay differ."""
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 20,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_PAGE_BYTES = 4096
_STEPS_PER_CHECK = 5000
"""Of SQLite's virtual machine, between two looks at the clock: a tenth of a millisecond or so."""
_CELL_CHARACTERS = 2000
_RESULT_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Template:
    """A database as it is at the start of episodes."""

    image: bytes

    @classmethod
    def from_script(cls, script: str) -> Template:
        """Run SQL statements in an empty database.

        Raises:
            InputError: SQLite refuses them.
        """
        connection = sqlite3.connect(":memory:")
        try:
            connection.executescript(script)
            return cls(connection.serialize())
        except sqlite3.Error as error:
            raise InputError(f"The SQL script of a template does not run: {error}.") from None
        finally:
            connection.close()

    @classmethod
    def from_file(cls, path: str | Path) -> Template:
        """Read a database file, or a file of SQL statements whose name ends with `.sql`.

        Raises:
            InputError: there is none, or it is neither.
        """
        file = Path(path)
        if not file.is_file():
            raise InputError(
                f"No database file at {str(path)!r}; give an SQLite file, or SQL statements in a .sql file."
            )
        return _read(str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size)


class Sqlite(ToolServer):
    """Query and change a private SQLite database."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._may_write = False
        self._deadline = 0.0
        self._is_closing = False

    def seed(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        template: Template | None = None,
        script: str | None = None,
        database: str | None = None,
        read_only: bool = False,
        max_rows: int = 100,
        statement_seconds: float = 5.0,
        max_bytes: int = 64 << 20,
    ) -> None:
        """Open the episode's database.

        Args:
            template: What it starts as; share one between episodes.
            script: SQL statements to start from, instead.
            database: Path of an SQLite file or of a `.sql` file to start from, instead. It is never written to.
            read_only: Whether `sql_execute` refuses everything.
            max_rows: Rows that a query returns at most.
            statement_seconds: What one statement may take.
            max_bytes: Size that the database may grow to.

        Raises:
            InputError: more than one start is given, or it cannot be read.
        """
        if sum(start is not None for start in (template, script, database)) > 1:
            raise InputError("A database starts from one of template, script and database; give one.")
        if script is not None:
            template = _scripted(script)
        elif database is not None:
            template = Template.from_file(database)
        self.read_only, self.max_rows, self.statement_seconds = read_only, max_rows, statement_seconds
        # Tools run in threads, one at a time by the lock. Without a cache, each statement is authorised anew.
        connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None, cached_statements=0)
        if template is not None and template.image:
            connection.deserialize(template.image)
        connection.execute(f"PRAGMA max_page_count = {max(1, max_bytes // _PAGE_BYTES)}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        for limit, value in _LIMITS.items():
            connection.setlimit(limit, value)
        connection.text_factory = _text
        connection.set_authorizer(self._authorize)
        connection.set_progress_handler(self._must_stop, _STEPS_PER_CHECK)
        self._connection = connection

    async def close(self) -> None:
        self._is_closing = True
        if self._lock.acquire(blocking=False):
            self._lock.release()
            self.shut()
        else:  # a statement that outlived its call; it stops at its next check
            await asyncio.to_thread(self.shut)

    @tool(read_only=True, blocking=True)
    def sql_schema(self) -> str:
        """Show the SQL statements that define the tables, views and indexes."""
        found = self._run("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid", False)
        return "\n".join(f"{row[0]};" for row in found["rows"]) or "The database is empty."

    @tool(read_only=True, blocking=True)
    def sql_query(self, sql: str) -> dict[str, Any]:
        """Run one SELECT statement and return its columns and rows.

        Args:
            sql: The statement, in SQLite's dialect.
        """
        return self._run(sql, False)

    @tool(destructive=True, blocking=True)
    def sql_execute(self, sql: str) -> dict[str, Any]:
        """Run one statement that changes data or tables (INSERT, UPDATE, DELETE, CREATE, ...), and keep the change.

        Args:
            sql: The statement, in SQLite's dialect.
        """
        if self.read_only:
            raise ToolError("This database is read-only; use sql_query.")
        return self._run(sql, True)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return every row of every table, for verifiers; not a tool."""
        with self._lock:
            connection = self._opened()
            self._may_write, self._deadline = False, time.monotonic() + 60.0
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            return {name: _rows(connection, name) for (name,) in found}

    def image(self) -> bytes:
        """Return the database as a file would hold it; equal images are equal databases. Not a tool."""
        with self._lock:
            return self._opened().serialize()

    def _run(self, sql: str, may_write: bool) -> dict[str, Any]:
        with self._lock:
            connection = self._opened()
            self._may_write, self._deadline = may_write, time.monotonic() + self.statement_seconds
            try:
                cursor = connection.execute(sql)
                rows = cursor.fetchmany(self.max_rows + 1)
                columns = [column[0] for column in cursor.description or ()]
                changed = cursor.rowcount
                cursor.close()
            except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
                raise ToolError(self._explain(error)) from None
        if not columns:
            return {"rows_changed": max(0, changed)} if may_write else {"columns": [], "rows": []}
        return _fitting(columns, rows, self.max_rows)

    def _explain(self, error: Exception) -> str:
        if "interrupted" in str(error):
            return f"The statement was stopped after {self.statement_seconds:g} seconds; ask for less."
        if "not authorized" in str(error) or "prohibited" in str(error):
            if self._may_write:
                return (
                    f"Not allowed here: {error}. Transactions, ATTACH, VACUUM, PRAGMA and extensions are not available."
                )
            return f"Not allowed here: {error}. sql_query runs SELECT alone; change data with sql_execute."
        return f"SQL error: {error}."

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ToolError("The database is not open.")
        return self._connection

    def shut(self) -> None:
        """Close the database at once; for who holds one outside of an episode."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _must_stop(self) -> int:
        return int(self._is_closing or time.monotonic() > self._deadline)

    def _authorize(self, action: int, first: Any, second: Any, database: Any, trigger: Any) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            allowed = second not in _NO_FUNCTIONS
        elif action == sqlite3.SQLITE_PRAGMA:
            allowed = str(first).casefold() in _PRAGMAS
        else:
            allowed = action in _READS or (self._may_write and action in _WRITES)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


@functools.lru_cache(maxsize=8)
def _read(path: str, changed: int, size: int) -> Template:
    if path.endswith(".sql"):
        return Template.from_script(Path(path).read_text(encoding="utf-8"))
    source = sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True)
    try:
        source.execute("SELECT count(*) FROM sqlite_master")
        return Template(source.serialize())
    except sqlite3.Error as error:
        raise InputError(
            f"{path!r} is no SQLite database ({error}); SQL statements stand in a file that ends with .sql."
        ) from None
    finally:
        source.close()


@functools.lru_cache(maxsize=32)
def _scripted(script: str) -> Template:
    return Template.from_script(script)


def _rows(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    quoted = '"' + table.replace('"', '""') + '"'
    cursor = connection.execute(f"SELECT * FROM {quoted}")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in cursor]


def _fitting(columns: list[str], rows: list[tuple[Any, ...]], max_rows: int) -> dict[str, Any]:
    """As many rows as may be shown; what was left out is said."""
    shown: list[list[Any]] = []
    characters = 0
    for row in rows[:max_rows]:
        cells = [_short(_plain(value)) for value in row]
        characters += sum(len(str(cell)) for cell in cells)
        if characters > _RESULT_CHARACTERS and shown:
            break
        shown.append(cells)
    found: dict[str, Any] = {"columns": columns, "rows": shown}
    if len(shown) < len(rows):
        found["truncated"] = f"Only the first {len(shown)} rows are shown; narrow the query, or use LIMIT and OFFSET."
    return found


def _plain(value: Any) -> Any:
    return f"x'{value.hex()}'" if isinstance(value, bytes) else value


def _short(value: Any) -> Any:
    is_long = isinstance(value, str) and len(value) > _CELL_CHARACTERS
    return f"{value[:_CELL_CHARACTERS]}... ({len(value)} characters)" if is_long else value


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
