"""A tool for questions in SQL, which reads SQLite databases and changes nothing."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from agent_core.context import tool_context
from agent_core.errors import DefinitionError, ToolError
from agent_core.toolbox import workspace
from agent_core.tools import Tool, tool
from agent_core.types import Json

MOST_VALUE_BYTES = 1_000_000
MOST_RESULT_CHARS = 500_000
MOST_SQL_BYTES = 100_000
MOST_LIKE_BYTES = 200
LOOK_EVERY = 10_000
"""Steps of SQLite's machine between two looks at the clock."""
READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
SCHEMA_PRAGMAS = frozenset({"foreign_key_list", "index_info", "index_list", "table_info", "table_list", "table_xinfo"})
SETTINGS = ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "query_only=ON")
"""For databases that strangers made: https://www.sqlite.org/security.html."""


def query(database: str | os.PathLike[str] | None = None, *, max_rows: int = 200, seconds: float = 10.0) -> Tool:
    """A tool that runs one SELECT over a SQLite database: the one at `database`, or those in the job's workspace.

    At most `max_rows` rows come back, and a statement may take `seconds`. Raises DefinitionError for other limits.
    """
    if not isinstance(max_rows, int) or isinstance(max_rows, bool) or not 0 < max_rows <= 10_000:
        raise DefinitionError(f"tool query: max_rows is {max_rows!r}; expected a whole number from 1 to 10,000")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 600:
        raise DefinitionError(f"tool query: seconds is {seconds!r}; expected a number of seconds up to 600")
    options: Any = {"effect": "read", "timeout": seconds + 5.0, "name": "query"}

    @tool(**options)
    def of_workspace(
        file: Annotated[str, "the database, as list_files names it"],
        sql: Annotated[str, "one SELECT statement in SQLite's SQL"],
    ) -> Json:
        """Ask a SQLite database of the workspace. Its tables are in sqlite_schema (columns name and sql)."""
        path = workspace.path_of(tool_context().workspace, file)
        return answer(f"{_uri(path)}&immutable=1", sql, max_rows=max_rows, seconds=seconds)

    @tool(**options)
    def of_database(sql: Annotated[str, "one SELECT statement in SQLite's SQL"]) -> Json:
        """Ask the database. Its tables are in sqlite_schema (columns name and sql)."""
        assert database is not None
        return answer(_uri(Path(database).resolve()), sql, max_rows=max_rows, seconds=seconds)

    return of_workspace if database is None else of_database


def answer(uri: str, sql: str, *, max_rows: int, seconds: float) -> Json:
    """The rows of one statement. Raises ToolError, with what SQLite says of it."""
    deadline = time.monotonic() + seconds
    try:
        with contextlib.closing(_connected(uri, deadline)) as connection:
            cursor = connection.execute(sql)
            columns = [column[0] for column in cursor.description or ()]
            rows, truncated = _rows(cursor, max_rows)
    except (sqlite3.Error, sqlite3.Warning, UnicodeError) as exc:
        if time.monotonic() >= deadline:
            raise ToolError(
                f"the statement took longer than {seconds:g} seconds; ask for less", code="timeout"
            ) from None
        raise ToolError(_explained(exc), code="sql_error") from None
    return {"columns": columns, "rows": rows, "truncated": truncated}


def _connected(uri: str, deadline: float) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None)
    try:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MOST_SQL_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MOST_LIKE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        for setting in SETTINGS:
            connection.execute(f"PRAGMA {setting}")
        connection.set_progress_handler(lambda: time.monotonic() > deadline, LOOK_EVERY)
        connection.set_authorizer(_allowed)
    except BaseException:
        connection.close()
        raise
    return connection


def _allowed(action: int, subject: str | None, *_: object) -> int:
    reads = action in READS or (action == sqlite3.SQLITE_PRAGMA and subject in SCHEMA_PRAGMAS)
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY


def _rows(cursor: Iterator[tuple[Any, ...]], most: int) -> tuple[list[list[Any]], bool]:
    """The rows up to both limits, and whether there are more."""
    rows: list[list[Any]] = []
    chars = 0
    for row in cursor:
        values = [f"<{len(value):,} bytes>" if isinstance(value, bytes) else value for value in row]
        chars += sum(len(value) for value in values if isinstance(value, str))
        if len(rows) == most or chars > MOST_RESULT_CHARS:
            return rows, True
        rows.append(values)
    return rows, False


def _explained(exc: Exception) -> str:
    text = str(exc)
    if "not authorized" in text or "prohibited" in text or "readonly" in text:
        return "only SELECT is allowed here: the statement would change something or read what is not of this database"
    if "unable to open" in text:
        return "there is no database that can be opened"
    return f"SQLite says: {text[:500]}"


def _uri(path: Path) -> str:
    return f"file:{quote(str(path))}?mode=ro"
