"""The queries that answer a question: at most five, in two rounds, each with a simpler form for when it fails."""

from __future__ import annotations

from simulator.behaviours.analyst.question import Question
from simulator.behaviours.analyst.table import Column, Query, Table

MAX_MISSING = 40
MAX_NUMBERS = 8
GROUPS = 20
TOP = 10
LABELS = {"count": "number of rows", "sum": "sum", "avg": "average", "median": "median", "min": "lowest",
          "max": "highest"}  # fmt: skip


def rounds(table: Table, question: Question) -> list[tuple[str, list[Query]]]:
    """What to say and to ask in each round; the queries of a round do not depend on each other."""
    first = [_overview(table)]
    if table.rows == 0:
        return [("The table is empty; I check that.", first)]
    if table.numbers:
        first.append(_numbers(table))
    second = list(_details(table, question))
    found = [("I start with the totals.", first)]
    return [*found, ("Now the figures that answer the question.", second)] if second else found


def _details(table: Table, question: Question) -> list[Query]:
    found = []
    if question.group is not None:
        found.append(_by_group(table, question, question.group))
    if question.over_time is not None:
        found.append(_by_month(table, question, question.over_time))
    if question.measure is not None and (question.over_time is None or question.top is not None):
        found.append(_top(table, question, question.measure))
    if question.measure is None:
        found += [_by_group(table, question, c) for c in table.groups if c is not question.group][:1]
    return found


def _overview(table: Table) -> Query:
    rows = 'count(*) AS "number of rows"'
    missing = [f"count(*) - count({ident(c.name)}) AS {ident('missing in ' + c.name)}" for c in table.columns]
    selected = ", ".join([rows, *missing[:MAX_MISSING]])
    source = ident(table.name)
    return Query("overview", "Overview", f"SELECT {selected} FROM {source}", f"SELECT {rows} FROM {source}")


def _numbers(table: Table) -> Query:
    source = ident(table.name)
    parts = [
        f'SELECT {literal(c.name)} AS "column", min({n})::DOUBLE AS "lowest", avg({n})::DOUBLE AS "average", '
        f'max({n})::DOUBLE AS "highest", sum({n})::DOUBLE AS "sum" FROM {source}'
        for c in table.numbers[:MAX_NUMBERS]
        if (n := ident(c.name))
    ]
    return Query("numbers", "Numbers", " UNION ALL ".join(parts), parts[0].replace("::DOUBLE", ""))


def _by_group(table: Table, question: Question, group: Column) -> Query:
    columns, order = _aggregates(question)
    direction = "ASC" if question.lowest else "DESC"
    limit = question.top or GROUPS
    name, source = ident(group.name), ident(table.name)
    measure = f"{question.measure.name} by " if question.measure else "Rows by "
    return Query(
        "group",
        f"{measure}{group.name}",
        f"SELECT {name}, {', '.join(columns)} FROM {source} GROUP BY 1 "
        f"ORDER BY {order + 2} {direction} NULLS LAST, 1 LIMIT {limit}",
        f"SELECT {name}, count(*) FROM {source} GROUP BY {name} LIMIT {limit}",
    )


def _by_month(table: Table, question: Question, date: Column) -> Query:
    columns, _ = _aggregates(question)
    source = ident(table.name)
    measure = f"{question.measure.name} by " if question.measure else "Rows by "
    return Query(
        "month",
        f"{measure}month of {date.name}",
        f"SELECT strftime({ident(date.name)}, '%Y-%m') AS \"month\", {', '.join(columns)} FROM {source} "
        "GROUP BY 1 ORDER BY 1 NULLS LAST LIMIT 120",
        f"SELECT min({ident(date.name)}), max({ident(date.name)}) FROM {source}",
    )


def _aggregates(question: Question) -> tuple[list[str], int]:
    """The aggregates of a grouped query, and the place among them of the one to rank by."""
    columns = [f'count(*) AS "{LABELS["count"]}"']
    if question.measure is None:
        return columns, 0
    wanted = ["sum", "avg"] + ([question.aggregate] if question.aggregate in ("median", "min", "max") else [])
    name = ident(question.measure.name)
    columns += [f"{f}({name}) AS {ident(f'{LABELS[f]} of {question.measure.name}')}" for f in wanted]
    return columns, ["count", *wanted].index(question.aggregate)


def _top(table: Table, question: Question, measure: Column) -> Query:
    texts = [c for c in table.columns if not c.is_number and not c.is_date]
    label = max(texts, key=lambda c: (c.distinct, c is question.group), default=None)
    shown = [c for c in (label, question.group) if c is not None and c is not measure]
    names = list(dict.fromkeys(ident(c.name) for c in [*shown, measure]))
    limit = question.top or TOP
    direction, word = ("ASC", "Lowest") if question.lowest else ("DESC", "Highest")
    place, source = len(names), ident(table.name)
    tie = ", 1" if place > 1 else ""
    return Query(
        "top",
        f"{word} {measure.name}",
        f"SELECT {', '.join(names)} FROM {source} WHERE {ident(measure.name)} IS NOT NULL "
        f"ORDER BY {place} {direction}{tie} LIMIT {limit}",
        f"SELECT {ident(measure.name)} FROM {source} ORDER BY 1 {direction} LIMIT {limit}",
    )


def ident(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """The text as an SQL string."""
    return "'" + value.replace("'", "''") + "'"
