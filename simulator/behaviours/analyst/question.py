"""Reads what a question asks of a table: which columns, which aggregate, how many, over time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from simulator.behaviours.analyst.table import Column, Table

AGGREGATES = (
    ("median", r"median"),
    ("avg", r"averages?|avg|mean|typical"),
    ("sum", r"sums?|totals?|altogether|overall"),
    ("count", r"counts?|how many|how often|number of|most common|most frequent|frequency"),
    ("max", r"maximum|max"),
    ("min", r"minimum|min"),
)
LOWEST = r"lowest|least|fewest|smallest|worst|cheapest|bottom|ascending"
OVER_TIME = r"trends?|over time|(?:per|by|each|every) (?:month|day|week|year)|monthly|daily|weekly|yearly|seasonal\w*"
TOP = (
    r"(?:top|first|best|bottom|worst|highest|lowest|largest|biggest) (\d{1,3})\b"
    r"|\b(\d{1,3}) (?:most|best|highest|lowest|largest|biggest)"
)
RATES = {"price", "rate", "ratio", "rating", "score", "age", "temperature", "percent", "latency", "duration", "average"}


@dataclass(frozen=True, slots=True)
class Question:
    """What to work out. `measure` is a number column, `group` what to group it by, `aggregate` what to rank by."""

    measure: Column | None
    group: Column | None
    aggregate: str
    top: int | None
    lowest: bool
    over_time: Column | None


def read_question(text: str, table: Table) -> Question:
    """The question in the user's words, filled up with what the table suggests."""
    plain = _plain(text)
    named = _named(plain, table.columns)
    top = _top(plain)
    group = _group(plain, named, table, top)
    numbers = [c for c in named if c.is_number and c is not group]
    measure = next(iter(numbers or [c for c in table.numbers if c is not group]), None)
    dates = [c for c in [*named, *table.columns] if c.is_date]
    over_time = dates and (any(c.is_date for c in named) or bool(re.search(rf"\b(?:{OVER_TIME})\b", plain)))
    return Question(
        measure=measure,
        group=group,
        aggregate=_aggregate(plain, measure),
        top=top,
        lowest=re.search(rf"\b(?:{LOWEST})\b", plain) is not None,
        over_time=dates[0] if over_time else None,
    )


def _plain(text: str) -> str:
    return " ".join("".join(c.lower() if c.isalnum() else " " for c in text).split())


def _named(plain: str, columns: list[Column]) -> list[Column]:
    """The columns that the text names, in the order in which it does; a plural will do."""
    found = [(match.start(), c) for c in columns if c.words and (match := re.search(_pattern(c.words), plain))]
    return [c for _, c in sorted(found, key=lambda pair: pair[0])]


def _pattern(words: list[str]) -> str:
    name = r" ?".join(map(re.escape, words))
    stem = name.removesuffix("y") if name.endswith("y") else name.removesuffix("s")
    edge = r"\b" if name.isascii() else ""  # not every script puts spaces between words
    return rf"{edge}(?:{name}|{stem}(?:s|es|ies)){edge}"


def _group(plain: str, named: list[Column], table: Table, top: int | None) -> Column | None:
    for column in named:
        if not column.is_number and not column.is_date:
            return column
    for column in named:
        by = re.search(rf"\b(?:by|per|each|every) ?{_pattern(column.words)}", plain)
        if column.is_number and by and top is None and column.distinct <= 50:
            return column
    return next(iter(table.groups), None)


def _top(plain: str) -> int | None:
    match = re.search(rf"\b{TOP}", plain)
    return max(1, min(50, int(match.group(1) or match.group(2)))) if match else None


def _aggregate(plain: str, measure: Column | None) -> str:
    if measure is None:
        return "count"
    for name, pattern in AGGREGATES:
        if re.search(rf"\b(?:{pattern})\b", plain):
            return name
    return "avg" if RATES.intersection(measure.words) else "sum"
