"""What a tenant has used: the counters of its days, and the settled rows of its jobs' ledgers."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from agent_core.types import USAGE_FIELDS, Json, usd
from jobs import keys
from jobs.errors import InvalidError, NotFoundError
from jobs.journal import ledger_rows
from jobs.link import RedisLink
from jobs.store import JobStore

IN_FIELD = ("agent", "user", "model", "role")
"""What the name of a counter says, in this order."""
DIMENSIONS = ("day", *IN_FIELD)
TOKENS = tuple(name for name, _ in USAGE_FIELDS)
SHOWN_DAYS = 30
MOST_DAYS = 400
"""Days for which counters are kept."""
DAYS_AT_ONCE = 31
JOBS_AT_ONCE = 20
PLACE = re.compile(r"(\d{4}-\d\d-\d\d)\.([A-Za-z0-9_-]{1,80})\.(\d{1,9})")


async def days_between(link: RedisLink, first: date | None, last: date | None) -> list[str]:
    """The days from `first` to `last`, both included; without them the 30 days up to today, by the clock of Redis.

    Raises InvalidError when there are none, or more than are kept.
    """
    seconds, _ = await link.command("TIME")
    last = last or datetime.fromtimestamp(int(seconds), UTC).date()
    first = first or last - timedelta(days=SHOWN_DAYS - 1)
    count = (last - first).days + 1
    if not 1 <= count <= MOST_DAYS:
        raise InvalidError(
            f"`from` {first} and `to` {last} must have 1 to {MOST_DAYS} days between them, both included"
        )
    return [(first + timedelta(days=n)).isoformat() for n in range(count)]


async def usage(
    link: RedisLink, tenant: str, days: Sequence[str], by: Sequence[str], only: Mapping[str, str]
) -> list[Json]:
    """The sums of some days for each value of the dimensions `by`, of what has the values `only` names.

    `cache_hit_rate` is the share of input tokens that came from the cache, None without any. Raises InvalidError for a
    dimension that is none.
    """
    if unknown := [name for name in by if name not in DIMENSIONS]:
        raise InvalidError(f"there is no usage by {unknown[0][:80]!r}; there are: {', '.join(DIMENSIONS)}")
    sums: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for start in range(0, len(days), DAYS_AT_ONCE):
        some = days[start : start + DAYS_AT_ONCE]
        for day, raw in zip(some, await asyncio.gather(*(_counters(link, tenant, day) for day in some)), strict=True):
            for (words, counter), amount in raw.items():
                values = {"day": day, **dict(zip(IN_FIELD, words, strict=True))}
                if all(values[name] == value for name, value in only.items()):
                    sums[tuple(values[name] for name in by)][counter] += amount
    return [_row(dict(zip(by, values, strict=True)), counts) for values, counts in sorted(sums.items())]


def parse_counter(field: bytes) -> tuple[tuple[str, ...], str]:
    """The values that a counter is of, as `IN_FIELD` names them, and what it counts."""
    words, _, counter = field.decode().rpartition(":")
    return tuple(json.loads(words)), counter


async def _counters(link: RedisLink, tenant: str, day: str) -> dict[tuple[tuple[str, ...], str], int]:
    raw = await link.command("HGETALL", keys.usage(tenant, day))
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    return {parse_counter(field): int(amount) for field, amount in pairs}


def _row(values: Json, counts: Counter[str]) -> Json:
    entered = counts["input_tokens"] + counts["cache_read_tokens"] + counts["cache_write_tokens"]
    return {
        **{name: value or None for name, value in values.items()},
        "calls": counts["calls"],
        **{name: counts[name] for name in TOKENS},
        "cost_usd": usd(counts["cost"]),
        "cache_hit_rate": round(counts["cache_read_tokens"] / entered, 4) if entered else None,
    }


# ---- the rows of all jobs


class Place(NamedTuple):
    """Where a row stands in a tenant's ledger: days in their order, in a day jobs by their ids."""

    day: str
    job_id: str
    number: int

    def text(self) -> str:
        """The place as `parse_place` reads it."""
        return f"{self.day}.{self.job_id}.{self.number}"


def parse_place(text: str) -> Place:
    """The place of a text. Raises InvalidError."""
    match = PLACE.fullmatch(text)
    if match is None:
        raise InvalidError("`after` is no cursor; send the next_cursor of the page before", code="invalid_cursor")
    return Place(match[1], match[2], int(match[3]))


async def ledger(
    store: JobStore, tenant: str, days: Sequence[str], after: Place | None = None
) -> AsyncIterator[tuple[Place, Json]]:
    """The settled rows of some days below a place, each with its day and with whose job it is of.

    The rows of jobs that were pruned are gone. A day is that of a row's reservation.
    """
    for day in days:
        if after is not None and day < after.day:
            continue
        charged = sorted(member.decode() for member in await store.link.command("SMEMBERS", keys.charged(tenant, day)))
        if after is not None and day == after.day:
            charged = [job_id for job_id in charged if job_id >= after.job_id]
        for start in range(0, len(charged), JOBS_AT_ONCE):
            some = charged[start : start + JOBS_AT_ONCE]
            found = await asyncio.gather(*(_rows(store, job_id, day) for job_id in some))
            for job_id, rows in zip(some, found, strict=True):
                for number, row in enumerate(rows):
                    place = Place(day, job_id, number)
                    if after is None or place > after:
                        yield place, row


async def _rows(store: JobStore, job_id: str, day: str) -> list[Json]:
    names = ("agent", "user", "session_id")
    try:
        record, lines = await asyncio.gather(store.link.command("HMGET", keys.job(job_id), *names), store.lines(job_id))
    except NotFoundError:
        return []
    whose = {name: value.decode() if value else None for name, value in zip(names, record, strict=True)}
    return [
        {"day": day, **row, **whose}
        for row in ledger_rows(job_id, lines)
        if row["settled_usd"] is not None and row["created_at"].startswith(day)
    ]
