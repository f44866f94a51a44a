"""The proof that no money went astray: every total is made again from the rows of the ledger, and compared."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from agent_core.types import USAGE_FIELDS, Json, micros, usd
from jobs import keys
from jobs.errors import NotFoundError
from jobs.journal import ledger_rows
from jobs.link import RedisLink
from jobs.store import JobStore
from jobs.usage import TOKENS, parse_counter

JOBS_AT_ONCE = 20
TRIES = 3
"""How often a job is read that moves while it is read."""
IN_JOB = ("cost", "reserved", "spent", "held", "spent_tokens", "held_tokens", "open", *TOKENS)
IN_METER = ("settled", "reserved", "settled_tokens", "reserved_tokens", "open")
MONEY = frozenset({"cost", "reserved", "spent", "held", "settled"})
KEPT_DAYS = {"total": None, "month": 400, "day": 40, "session": 90, "usage": 400}
"""For how many days `money.lua` keeps what is not used; None is for ever."""
Figures = dict[str, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure under a key of Redis that is not what the rows come to: micro-dollars, tokens, or how many there are."""

    key: str
    figure: str
    recorded: int
    rows: int

    def to_json(self) -> Json:
        if self.figure.rpartition(":")[2] in MONEY:
            return {
                "key": self.key,
                "figure": f"{self.figure}_usd",
                "recorded": usd(self.recorded),
                "rows": usd(self.rows),
            }
        return {"key": self.key, "figure": self.figure, "recorded": self.recorded, "rows": self.rows}


@dataclass(slots=True)
class Audit:
    """What was compared. `unchecked` says of each key, or window, that could not be why."""

    jobs: int = 0
    rows: int = 0
    figures: int = 0
    differences: list[Difference] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        return not self.differences

    def compare(self, key: str, recorded: Figures, rows: Figures) -> None:
        """Notes each figure that differs; one that is not there is 0."""
        for figure in sorted({*recorded, *rows}):
            self.figures += 1
            if recorded.get(figure, 0) != rows.get(figure, 0):
                self.differences.append(Difference(key, figure, recorded.get(figure, 0), rows.get(figure, 0)))

    def to_json(self) -> Json:
        return {
            "exact": self.exact,
            "jobs": self.jobs,
            "rows": self.rows,
            "figures": self.figures,
            "differences": [difference.to_json() for difference in self.differences],
            "unchecked": [{"what": what, "why": why} for what, why in sorted(self.unchecked.items())],
        }


async def audit(link: RedisLink, tenant: str) -> Audit:
    """Compares all that is counted of a tenant with the rows of its jobs.

    It may run while jobs do: what moves meanwhile stays unchecked. So do the days, months and totals that a job was
    charged in which is pruned, for its rows are gone with it.
    """
    store, books = JobStore(link), _Books(tenant)
    before = await _counted(link, tenant)
    ids = [job_id.decode() for job_id in await link.command("ZRANGE", keys.all_jobs(tenant), 0, -1)]
    for start in range(0, len(ids), JOBS_AT_ONCE):
        some = ids[start : start + JOBS_AT_ONCE]
        for job_id, read in zip(some, await asyncio.gather(*(_read(store, one) for one in some)), strict=True):
            if read is not None:
                books.enter(job_id, *read)
    after = await _counted(link, tenant)
    seconds, _ = await link.command("TIME")
    return books.close(before, after, datetime.fromtimestamp(int(seconds), UTC).date())


async def _read(store: JobStore, job_id: str) -> tuple[dict[str, str], list[Json], bool] | None:
    """A job's record and rows, and whether they are of one moment; None when it is pruned."""
    key = keys.job(job_id)
    record: dict[str, str] = {}
    rows: list[Json] = []
    for _ in range(TRIES):
        try:
            first, lines, last = await asyncio.gather(
                store.link.command("HGETALL", key), store.lines(job_id), store.link.command("HGETALL", key)
            )
        except NotFoundError:
            return None
        record, rows = _texts(last), ledger_rows(job_id, lines)
        if not record or first == last:
            break
    return (record, rows, first == last) if record else None


async def _counted(link: RedisLink, tenant: str) -> dict[str, Any]:
    """What is under each meter, day of usage and set of charged jobs of a tenant."""
    names: set[str] = set()
    cursor = b"0"
    while True:
        cursor, found = await link.command("SCAN", cursor, "MATCH", f"{keys.PREFIX}*:{tenant}:*", "COUNT", 1000)
        names.update(name.decode() for name in found)
        if int(cursor) == 0:
            break
    hashes = [name for name in names if name.startswith((keys.METER_PREFIX + tenant, keys.USAGE_PREFIX + tenant))]
    sets = [name for name in names if name.startswith(keys.CHARGED_PREFIX + tenant)]
    values = await asyncio.gather(
        *(link.command("HGETALL", name) for name in hashes), *(link.command("SMEMBERS", name) for name in sets)
    )
    return dict(zip([*hashes, *sets], values, strict=True))
