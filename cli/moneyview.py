"""How budgets, usage and its check look to a person."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal

from cli import output
from cli.client import Json

COUNTS = ("calls", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
FIGURES = (*COUNTS, "cost_usd", "cache_hit_rate")


def print_budgets(budgets: Sequence[Json]) -> None:
    """A line for each budget."""
    names = ("usd", "spent_usd", "reserved_usd", "remaining_usd", "tokens", "spent_tokens", "remaining_tokens")
    columns = ("scope", "window", "limit $", "spent $", "reserved $", "left $", "token limit", "tokens", "tokens left")
    rows = [(b["scope"], _window(b), *(b[name] for name in names), b["at_limit"]) for b in budgets]
    output.print_table((*columns, "at limit"), rows)


def _window(budget: Json) -> str:
    """The window; that of a default, which each that it holds for has for itself, by its period."""
    return str(budget["window"] if budget["spent_usd"] is not None else budget["period"])


def print_usage(rows: Sequence[Json]) -> None:
    """The sums, their totals last."""
    dimensions = [name for name in (rows[0] if rows else {"day": None}) if name not in FIGURES]
    cells = [
        (*(row[name] for name in dimensions), *(row[name] for name in COUNTS), _percent(row), row["cost_usd"])
        for row in rows
    ]
    totals = [sum(row[name] for row in rows) for name in COUNTS]
    cost = sum((Decimal(row["cost_usd"]) for row in rows), Decimal(0))
    cells.append(("total", *[""] * (len(dimensions) - 1), *totals, "", cost))
    columns = (*dimensions, "calls", "input", "output", "cache read", "cache write", "cached %", "cost $")
    output.print_table(columns, cells, totals=True)


def _percent(row: Json) -> str:
    rate = row["cache_hit_rate"]
    return "" if rate is None else f"{rate:.1%}".rstrip("%")


def print_audit(audit: Json) -> None:
    """What a check of all totals found."""
    rows = [(d["key"], d["figure"], d["recorded"], d["rows"]) for d in audit["differences"]]
    if rows:
        output.print_table(("key", "figure", "recorded", "sum of its rows"), rows)
    for unchecked in audit["unchecked"]:
        output.say(f"not checked: {unchecked['what']}: {unchecked['why']}")
    looked_at = f"{audit['figures']} figures, {audit['jobs']} jobs, {audit['rows']} ledger rows"
    verdict = f"{len(rows)} totals are NOT the sum of their rows" if rows else "every total is the sum of its rows"
    output.line(f"{verdict} ({looked_at})")


async def export(pieces: AsyncIterator[str]) -> None:
    """Text on standard output, as it comes."""
    async for piece in pieces:
        sys.stdout.write(piece)
    sys.stdout.flush()
