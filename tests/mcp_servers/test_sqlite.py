"""The sqlite server: private databases, and nothing that leaves them, never ends or fills the memory."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gymrail import Environment, ToolError
from gymrail.episode import Episode
from gymrail.errors import InputError
from gymrail.registry import find_tool_server
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task
from gymrail_mcp_servers.sqlite.server import Sqlite, Template

SCRIPT = """
CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT NOT NULL, picture BLOB);
INSERT INTO pets VALUES (1, 'Rex', x'00ff'), (2, 'Mia', NULL), (3, 'Bo', NULL);
CREATE VIEW names AS SELECT name FROM pets;
"""
TEMPLATE = Template.from_script(SCRIPT)


@pytest.fixture
def server() -> Iterator[Sqlite]:
    yield from opened(template=TEMPLATE)


def opened(**settings: Any) -> Iterator[Sqlite]:
    server = Sqlite()
    server.seed(**settings)
    yield server
    asyncio.run(server.close())


def test_a_query_returns_columns_and_rows_and_bytes_as_text(server: Sqlite) -> None:
    assert server.sql_query("SELECT * FROM pets WHERE id < 3 ORDER BY id") == {
        "columns": ["id", "name", "picture"],
        "rows": [[1, "Rex", "x'00ff'"], [2, "Mia", None]],
    }
    assert server.sql_query("SELECT count(*) FROM names") == {"columns": ["count(*)"], "rows": [[3]]}


def test_a_change_is_kept_and_counted(server: Sqlite) -> None:
    assert server.sql_execute("UPDATE pets SET name = upper(name) WHERE id > 1") == {"rows_changed": 2}
    assert [row["name"] for row in server.tables()["pets"]] == ["Rex", "MIA", "BO"]
    assert server.sql_execute("DELETE FROM pets WHERE id = 1 RETURNING name") == {
        "columns": ["name"],
        "rows": [["Rex"]],
    }
    server.sql_execute("CREATE TABLE owners (id INTEGER PRIMARY KEY)")
    assert list(server.tables()) == ["owners", "pets"]


def test_the_schema_is_shown(server: Sqlite) -> None:
    assert "CREATE TABLE pets" in server.sql_schema()
    assert "CREATE VIEW names" in server.sql_schema()
    empty = Sqlite()
    empty.seed()
    assert empty.sql_schema() == "The database is empty."
    asyncio.run(empty.close())


def test_episodes_share_no_database() -> None:
    one, two = Sqlite(), Sqlite()
    for server in (one, two):
        server.seed(template=TEMPLATE)
    one.sql_execute("DELETE FROM pets")
    assert (len(one.tables()["pets"]), len(two.tables()["pets"])) == (0, 3)
    for server in (one, two):
        asyncio.run(server.close())


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO pets VALUES (9, 'x', NULL)", "UPDATE pets SET name = 'x'", "DELETE FROM pets", "DROP TABLE pets",
        "CREATE TABLE t (x)", "CREATE TEMP TABLE t (x)", "WITH x AS (SELECT 1) DELETE FROM pets",
    ],
)  # fmt: skip
def test_a_query_changes_nothing(server: Sqlite, sql: str) -> None:
    before = server.tables()
    with pytest.raises(ToolError, match="Not allowed here"):
        server.sql_query(sql)
    assert server.tables() == before


def test_a_statement_that_was_executed_before_is_still_refused_as_a_query(server: Sqlite) -> None:
    sql = "UPDATE pets SET name = name || '!'"
    server.sql_execute(sql)
    with pytest.raises(ToolError, match="Not allowed here"):
        server.sql_query(sql)
    assert [row["name"] for row in server.tables()["pets"]] == ["Rex!", "Mia!", "Bo!"]


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH DATABASE '{path}' AS other", "VACUUM INTO '{path}'", "VACUUM", "SELECT load_extension('{path}')",
        "PRAGMA journal_mode = WAL", "PRAGMA max_page_count = 1000000", "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA writable_schema = ON", "BEGIN", "COMMIT", "SAVEPOINT s", "DETACH DATABASE main",
        "CREATE VIRTUAL TABLE f USING fts5(x)", "SELECT random()", "SELECT hex(randomblob(4))",
        "UPDATE sqlite_master SET sql = 'x'", "ANALYZE",
    ],
)  # fmt: skip
def test_what_leaves_the_database_or_changes_its_settings_is_refused(server: Sqlite, sql: str, tmp_path: Path) -> None:
    for run in (server.sql_query, server.sql_execute):
        with pytest.raises(ToolError):
            run(sql.format(path=tmp_path / "out.db"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "SELEC 1", "SELECT * FROM dogs", "", "SELECT '\0", "\ud800"])
def test_what_is_no_single_statement_is_told_to_the_model(server: Sqlite, sql: str) -> None:
    if sql == "":
        assert server.sql_query(sql) == {"columns": [], "rows": []}
        return
    with pytest.raises(ToolError, match="SQL error"):
        server.sql_query(sql)


def test_a_pragma_that_only_reads_is_allowed(server: Sqlite) -> None:
    rows = server.sql_query("PRAGMA table_info(pets)")["rows"]
    assert [row[1] for row in rows] == ["id", "name", "picture"]


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def one_of(server: Sqlite) -> list[list[Any]]:
    """Select 1; again where the machine stalled for longer than a statement may take."""
    for _ in range(20):
        with contextlib.suppress(ToolError):
            return server.sql_query("SELECT 1")["rows"]
    raise AssertionError("no statement runs any more")


def test_a_statement_that_never_ends_is_stopped_and_the_next_one_runs() -> None:
    for server in opened(template=TEMPLATE, statement_seconds=0.2):
        with pytest.raises(ToolError, match=r"stopped after 0\.2 seconds"):
            server.sql_query(ENDLESS)
        assert one_of(server) == [[1]]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT hex(zeroblob(900000000))",
        "SELECT replace(hex(zeroblob(400000)), '0', 'xxxx')",
        "SELECT 'a' LIKE '" + "%a" * 500 + "'",
    ],
)
def test_values_of_any_size_are_refused(server: Sqlite, sql: str) -> None:
    with pytest.raises(ToolError, match="SQL error"):
        server.sql_query(sql)


def test_a_database_does_not_grow_beyond_its_limit() -> None:
    for server in opened(template=TEMPLATE, max_bytes=1 << 20):
        with pytest.raises(ToolError, match="full"):
            server.sql_execute(
                "INSERT INTO pets (name) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100) "
                "SELECT hex(zeroblob(50000)) FROM n"
            )
        assert len(server.tables()["pets"]) == 3


def test_long_results_are_cut_and_say_so() -> None:
    numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    for server in opened(template=TEMPLATE, max_rows=10):
        found = server.sql_query(numbers)
        assert (len(found["rows"]), found["truncated"][:22]) == (10, "Only the first 10 rows")
        wide = server.sql_query("SELECT hex(zeroblob(100000))")["rows"][0][0]
        assert len(wide) < 2100
        assert wide.endswith("(200000 characters)")


def test_a_read_only_database_refuses_every_change() -> None:
    for server in opened(template=TEMPLATE, read_only=True):
        with pytest.raises(ToolError, match="read-only"):
            server.sql_execute("DELETE FROM pets")
        assert len(server.sql_query("SELECT * FROM pets")["rows"]) == 3


def test_a_database_file_or_a_script_is_the_start_and_is_never_written(tmp_path: Path) -> None:
    file, script = tmp_path / "pets.db", tmp_path / "pets.sql"
    with sqlite3.connect(file) as made:
        made.executescript(SCRIPT)
    made.close()
    script.write_text(SCRIPT, encoding="utf-8")
    before = file.read_bytes()
    for settings in ({"database": str(file)}, {"database": str(script)}, {"script": SCRIPT}):
        for server in opened(**settings):
            server.sql_execute("DELETE FROM pets WHERE id = 1")
            assert len(server.tables()["pets"]) == 2
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets.db", "pets.sql"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"database": "nowhere.db"}, "No database file at 'nowhere.db'"),
        ({"script": "CREATE TABL"}, "does not run"),
        ({"script": "", "template": TEMPLATE}, "give one"),
    ],
)
def test_a_start_that_cannot_be_read_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sqlite().seed(**settings)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(InputError, match="is no SQLite database"):
        Sqlite().seed(database=str(tmp_path / "x.db"))


class Asked(Environment):
    """An environment around the server."""

    database: Sqlite

    def seed(self) -> None:
        self.database.seed(template=TEMPLATE, statement_seconds=3600.0)


def test_calls_that_come_together_take_turns_and_a_cancelled_one_stops_at_the_close() -> None:
    async def run() -> None:
        spec = EnvironmentSpec("asked", Asked)
        episode = await Episode.open(spec, Task.ask("?"))
        calls = [
            episode.call("sql_execute", {"sql": f"UPDATE pets SET id = id + {10**n}"}, f"c{n}") for n in range(2, 6)
        ]
        await asyncio.gather(*calls)
        assert [row["id"] for row in episode.environment.database.tables()["pets"]] == [111101, 111102, 111103]
        running = asyncio.ensure_future(episode.call("sql_query", {"sql": ENDLESS}))
        while not episode.environment.database._lock.locked():  # noqa: ASYNC110 - a thread takes it
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await episode.close()  # the statement itself may take an hour
        with pytest.raises(ToolError, match="not open"):
            episode.environment.database.sql_query("SELECT 1")

    asyncio.run(asyncio.wait_for(run(), 120))


def test_the_registry_finds_it() -> None:
    assert find_tool_server("sqlite") is Sqlite
    assert list(Sqlite.tools) == ["sql_schema", "sql_query", "sql_execute"]
