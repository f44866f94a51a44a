"""SQL over SQLite: rows come back, and nothing can be changed, left, or held up."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent_core import DefinitionError, Tool
from agent_core.toolbox import query, sql
from agent_core.types import Json
from tests.agent_core.toolbox.web import call, dials, error

FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

CHANGES = [
    "DELETE FROM orders",
    "INSERT INTO orders VALUES (1, 'x', NULL)",
    "UPDATE orders SET name = 'x'",
    "DROP TABLE orders",
    "CREATE TABLE t (x)",
    "CREATE TEMP TABLE t AS SELECT * FROM orders",
    "CREATE TEMP VIEW v AS SELECT 1",
    "ATTACH '/etc/passwd' AS p",
    "ATTACH ':memory:' AS p",
    "VACUUM INTO '/tmp/copy.db'",
    "PRAGMA query_only = OFF",
    "PRAGMA trusted_schema = ON",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA writable_schema = ON",
    "PRAGMA temp_store_directory = '/'",
    "BEGIN IMMEDIATE",
    "SAVEPOINT s",
    "REINDEX",
    "ANALYZE",
    "SELECT load_extension('/tmp/evil.so')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('/tmp/x', 'y')",
    "SELECT 1; DELETE FROM orders",
    "SELECT zeroblob(2000000)",
    "SELECT 'a' LIKE '%" + "a%" * 200 + "'",
    "SELEKT",
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make(tmp_path / "shop.db")
    make(tmp_path.parent / "other.db")
    (tmp_path / "link.db").symlink_to(tmp_path.parent / "other.db")
    (tmp_path / "no.db").write_text("not a database at all, but long enough to be looked at" * 20)
    return tmp_path


def make(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("PRAGMA synchronous = OFF; DROP TABLE IF EXISTS orders")
        connection.executescript(
            "CREATE TABLE orders (id INTEGER, name TEXT, data BLOB); CREATE INDEX i ON orders (id)"
        )
        rows = [(n, f"order {n}", bytes(n)) for n in range(500)]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)


@pytest.fixture(params=["workspace", "configured"])
def asked(request: pytest.FixtureRequest, place: Path) -> Iterator[Any]:
    """Asks the same database both ways."""

    async def ask(statement: str, **options: Any) -> Any:
        if request.param == "workspace":
            return await call(query(**options), place, file="shop.db", sql=statement)
        return await call(query(place / "shop.db", **options), place, sql=statement)

    before = (place / "shop.db").read_bytes()
    yield ask
    assert (place / "shop.db").read_bytes() == before
    assert not [path.name for path in place.iterdir() if path.name.startswith("shop.db-")]


def rows(result: Any) -> Json:
    assert not result.is_error, result.content
    answer: Json = json.loads(result.content)
    return answer


async def test_rows_come_back(asked: Any) -> None:
    assert rows(await asked("SELECT id, name, data FROM orders WHERE id IN (1, 2)")) == {
        "columns": ["id", "name", "data"],
        "rows": [[1, "order 1", "<1 bytes>"], [2, "order 2", "<2 bytes>"]],
        "truncated": False,
    }
    assert rows(await asked("SELECT name FROM sqlite_schema WHERE type = 'table'"))["rows"] == [["orders"]]
    assert len(rows(await asked("PRAGMA table_info(orders)"))["rows"]) == 3
    assert rows(await asked("WITH a AS (SELECT 1 AS x) SELECT x + 1 FROM a"))["rows"] == [[2]]
    assert rows(await asked("SELECT CAST(x'ff41' AS TEXT), NULL"))["rows"] == [["\ufffdA", None]]


async def test_rows_are_capped(asked: Any) -> None:
    answer = rows(await asked("SELECT id FROM orders", max_rows=3))
    assert (answer["rows"], answer["truncated"]) == ([[0], [1], [2]], True)
    assert not rows(await asked("SELECT id FROM orders LIMIT 3", max_rows=3))["truncated"]


def test_wide_rows_are_capped_too(place: Path) -> None:
    wide = sql.answer(f"file:{place}/shop.db", "SELECT hex(zeroblob(100000)) FROM orders", max_rows=9, seconds=9)
    assert (len(wide["rows"]), wide["truncated"]) == (sql.MOST_RESULT_CHARS // 200_000, True)


async def test_anything_but_reading_is_refused(asked: Any) -> None:
    codes = {statement: error(await asked(statement))["code"] for statement in CHANGES}
    assert {statement: code for statement, code in codes.items() if code != "sql_error"} == {}


async def test_what_is_refused_is_explained(asked: Any) -> None:
    assert error(await asked("DELETE FROM orders"))["message"].startswith("only SELECT is allowed here")
    assert error(await asked("SELECT wrong FROM orders"))["message"] == "SQLite says: no such column: wrong"


@pytest.mark.parametrize(
    "statement", [FOREVER, "SELECT sum(a.id * b.id * c.id * d.id) FROM orders a, orders b, orders c, orders d"]
)
async def test_a_statement_without_an_end_is_stopped(asked: Any, statement: str) -> None:
    assert error(await asked(statement, seconds=0.1))["code"] == "timeout"


@pytest.mark.parametrize(
    "file", ["link.db", "../other.db", "nowhere.db", "", "/etc/passwd", "shop.db?mode=rw", "no.db"]
)
async def test_only_databases_of_the_workspace_are_opened(place: Path, file: str) -> None:
    code = error(await call(query(), place, file=file, sql="SELECT * FROM orders"))["code"]
    assert code == (
        "sql_error" if file == "no.db" else "not_found" if file in ("nowhere.db", "shop.db?mode=rw") else "bad_path"
    )


async def test_a_symlink_beside_the_database_is_not_followed(place: Path) -> None:
    (place / "shop.db-journal").symlink_to(place.parent / "other.db")
    (place / "shop.db-wal").symlink_to(place.parent / "other.db")
    assert rows(await call(query(), place, file="shop.db", sql="SELECT count(*) FROM orders"))["rows"] == [[500]]


async def test_a_name_is_no_part_of_the_uri(place: Path) -> None:
    make(place / "a?mode=rwc#%2e.db")
    assert rows(await call(query(), place, file="a?mode=rwc#%2e.db", sql="SELECT count(*) FROM orders"))["rows"] == [
        [500]
    ]


async def test_databases_are_opened_to_be_read_alone(asked: Any) -> None:
    with dials() as seen:
        await asked("SELECT 1")
    assert [(event, "mode=ro" in where.partition("?")[2]) for event, where in seen] == [("sqlite3.connect", True)]


async def test_a_configured_database_that_is_not_there(tmp_path: Path) -> None:
    found = error(await call(query(tmp_path / "gone.db"), tmp_path, sql="SELECT 1"))
    assert (found["code"], found["message"]) == ("sql_error", "there is no database that can be opened")
    assert os.listdir(tmp_path) == []


def test_what_the_model_sees() -> None:
    made: list[Tool] = [query(), query("/srv/shop.db")]
    assert [sorted(t.input_schema["properties"]) for t in made] == [["file", "sql"], ["sql"]]
    assert {(t.name, t.effect) for t in made} == {("query", "read")}
    assert "/srv" not in json.dumps(made[1].definition())


@pytest.mark.parametrize("wrong", [{"max_rows": 0}, {"max_rows": True}, {"seconds": 0}, {"seconds": "1"}])
def test_limits_that_are_none(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="tool query: "):
        query(**wrong)
