"""What the tools tell about a table, and what is asked of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DOUBLE|FLOAT|REAL|(DECIMAL|NUMERIC)(\(.*\))?")
NOT_A_MEASURE = {"id", "index", "idx", "key", "code", "zip", "postcode", "phone", "year", "month", "day", "hour", "lat",
                 "lon", "lng", "latitude", "longitude", "line", "row", "rank", "status", "port", "pid"}  # fmt: skip
MEASURES = ("revenue", "sales", "turnover", "amount", "total", "profit", "income", "cost", "spend", "price", "salary",
            "value", "quantity", "qty", "units", "bytes", "size", "duration", "time", "score", "count")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A column, as describe_table describes it."""

    name: str
    type: str
    distinct: int
    nulls: int
    low: Any = None
    high: Any = None

    @property
    def is_number(self) -> bool:
        return NUMBER.fullmatch(self.type) is not None

    @property
    def is_date(self) -> bool:
        return self.type.startswith(("DATE", "TIMESTAMP"))

    @property
    def words(self) -> list[str]:
        """The words of the name: `unitPrice` and `unit_price` are both unit, price."""
        spaced = "".join(f" {c}" if c.isupper() and not self.name.isupper() else c for c in self.name)
        return "".join(c.lower() if c.isalnum() else " " for c in spaced).split()

    def interest(self, rows: int) -> int:
        """How much a number is worth summing up: below 0 for ids, years and the like."""
        numbered = "INT" in self.type and rows > 2 and self.distinct == rows and _spans(self.low, self.high, rows)
        if numbered or NOT_A_MEASURE.intersection(self.words) or self.distinct <= 1 < rows:
            return -1
        ranks = [len(MEASURES) - i for i, word in enumerate(MEASURES) if any(word in w for w in self.words)]
        return max(ranks, default=0)


def _spans(low: Any, high: Any, rows: int) -> bool:
    return isinstance(low, int) and isinstance(high, int) and high - low == rows - 1


@dataclass(frozen=True, slots=True)
class Table:
    """A table, as describe_table describes it."""

    file: str
    name: str
    rows: int
    columns: list[Column]
    other_files: list[str]

    @classmethod
    def of(cls, data: Json | None) -> Table | None:
        """The table of a describe_table result, or None when that is no such thing."""
        try:
            return None if data is None else cls(
                file=str(data["file"]),
                name=str(data["table"]),
                rows=int(data["rows"]),
                columns=[_column(c) for c in data["columns"]],
                other_files=[str(f) for f in data.get("other_files") or []],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def numbers(self) -> list[Column]:
        """The columns worth summing up, the most interesting first; ids only when there is nothing else."""
        found = sorted((c for c in self.columns if c.is_number), key=lambda c: -c.interest(self.rows))
        return [c for c in found if c.interest(self.rows) >= 0] or found

    @property
    def groups(self) -> list[Column]:
        """The columns worth grouping by, the most telling first."""
        few = [c for c in self.columns if self._is_group(c)]
        return sorted(few, key=lambda c: (c.is_number, c.distinct > 50))

    def _is_group(self, column: Column) -> bool:
        if column.is_date or column.distinct < 2:
            return False
        if column.is_number:
            return column.distinct <= 30 and column.distinct < self.rows and column.interest(self.rows) < 0
        return column.distinct <= max(50, self.rows // 2) and column.distinct < self.rows


def _column(data: Json) -> Column:
    return Column(
        name=str(data["name"]),
        type=str(data["type"]).upper(),
        distinct=int(data.get("distinct") or 0),
        nulls=int(data.get("nulls") or 0),
        low=data.get("min"),
        high=data.get("max"),
    )


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the database, and a simpler one for when it fails."""

    kind: str
    title: str
    sql: str
    simpler: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came back: the SQL that ran, its column names and rows; or the error."""

    query: Query
    sql: str
    columns: list[str]
    rows: list[list[Any]]
    error: str | None = None

    @classmethod
    def of(cls, query: Query, sql: str, data: Json) -> Result:
        rows = [row for row in data.get("rows") or [] if isinstance(row, list)]
        return cls(query, sql, [str(c) for c in data.get("columns") or []], rows)
