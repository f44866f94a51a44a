"""What a store holds of money, on either store, and the same made again from the rows of its jobs' ledgers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from agent_core.types import USAGE_FIELDS, AtLimit, Json, micros
from jobs import keys
from jobs.budgets import Period, field_of
from jobs.journal import ledger_rows
from jobs.records import Job
from jobs.store import JobStore
from jobs.testing import MemoryStore
from jobs.usage import parse_counter
from tests.jobs.driver import TENANT, Driver

K = TypeVar("K")
MeterKey = tuple[str, str]
"""Scope and window."""
UsageKey = tuple[str, tuple[str, ...], str]
"""Day, what a counter is of, and what it counts."""
IN_RECORD = ("cost", "reserved", "spent", "held", "spent_tokens", "held_tokens")


@dataclass
class Books:
    """The tenant's meters, usage and jobs' records; what is 0 is left out."""

    meters: defaultdict[MeterKey, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    usage: Counter[UsageKey] = field(default_factory=Counter)
    records: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def enter(self, job: Job, row: Json) -> None:
        """Adds a ledger row to all that it counts in."""
        spec, day, closed = job.spec, row["created_at"][:10], row["settled_usd"] is not None
        amount, tokens = micros(row["settled_usd"] if closed else row["reserved_usd"]), row["tokens"]
        for payer in (job.id, *spec.ancestors):
            name = "spent" if closed else "held"
            self.records[payer].update({name: amount, f"{name}_tokens": tokens})
        self.records[job.id]["cost" if closed else "reserved"] += amount
        for scope in scopes_of(job):
            for window in ("total", day[:7], day):
                name = "settled" if closed else "reserved"
                self.meters[scope, window].update({name: amount, f"{name}_tokens": tokens})
        if closed:
            about = (spec.agent, spec.user or "", row["model"], row["role"])
            used = {name: (row["usage"] or {}).get(field, 0) for name, field in USAGE_FIELDS}
            for counter, count in {"cost": amount, "calls": 1, **used}.items():
                self.usage[day, about, counter] += count

    def without_nothing(self) -> Books:
        kept = Books()
        kept.meters.update({key: Counter(_some(meter)) for key, meter in self.meters.items() if _some(meter)})
        kept.usage.update(_some(self.usage))
        kept.records.update({key: Counter(_some(record)) for key, record in self.records.items() if _some(record)})
        return kept


def _some(counts: Mapping[K, int]) -> dict[K, int]:
    return {key: count for key, count in counts.items() if count}


def scopes_of(job: Job) -> list[str]:
    """The scopes that have a meter."""
    named = {"agent": job.spec.agent, "user": job.spec.user, "session": job.spec.session_id}
    return ["tenant", *(f"{kind}:{name}" for kind, name in named.items() if name)]


async def rows_of(driver: Driver, job: Job) -> list[Json]:
    return ledger_rows(job.id, await driver.store.lines(job.id))


async def from_rows(driver: Driver, jobs: Iterable[Job]) -> Books:
    """The books as the rows of these jobs say that they are."""
    books, known = Books(), list(jobs)
    for job in known:
        for row in await rows_of(driver, job):
            books.enter(job, row)
    for forgotten in books.records.keys() - {job.id for job in known}:
        del books.records[forgotten]
    return books.without_nothing()


async def as_held(driver: Driver, jobs: Iterable[Job]) -> Books:
    """The books as the store holds them, with the records of these jobs."""
    books = Books()
    await (_read_memory if isinstance(driver.store, MemoryStore) else _read_redis)(driver, jobs, books)
    return books.without_nothing()


async def _read_memory(driver: Driver, jobs: Iterable[Job], books: Books) -> None:
    assert isinstance(driver.store, MemoryStore)
    accounts, records = driver.store.shelf.accounts, driver.store.shelf.records
    for (tenant, scope, window), meter in accounts.meters.items():
        if tenant == TENANT:
            books.meters[scope, window].update(meter)
    for (tenant, day), counters in accounts.usage.items():
        if tenant == TENANT:
            books.usage.update({(day, words[:-1], words[-1]): count for words, count in counters.items()})
    for job in jobs:
        books.records[job.id].update({name: int(records.get(job.id, {}).get(name, 0)) for name in IN_RECORD})


async def _read_redis(driver: Driver, jobs: Iterable[Job], books: Books) -> None:
    meters, usage = keys.meter(TENANT, "", "").removesuffix(":"), keys.usage(TENANT, "")
    for key, meter in (await _hashes(driver, meters)).items():
        scope, _, window = key.removeprefix(meters).rpartition(":")
        books.meters[scope, window].update({name.decode(): int(n) for name, n in meter.items()})
    for key, counters in (await _hashes(driver, usage)).items():
        for name, n in counters.items():
            books.usage[(key.removeprefix(usage), *parse_counter(name))] = int(n)
    for job in jobs:
        record = (await _hashes(driver, keys.job(job.id))).get(keys.job(job.id), {})
        books.records[job.id].update({name: int(record.get(name.encode(), 0)) for name in IN_RECORD})


async def _hashes(driver: Driver, prefix: str) -> dict[str, dict[bytes, bytes]]:
    """The hashes whose keys begin so."""
    assert isinstance(driver.store, JobStore)
    found = await driver.store.link.command("KEYS", f"{prefix}*")
    raws = await asyncio.gather(*(driver.store.link.command("HGETALL", key) for key in found))
    hashes = (raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True)) for raw in raws)
    return dict(zip((key.decode() for key in found), hashes, strict=True))


async def check(driver: Driver, *jobs: Job) -> Books:
    """Asserts that every sum is that of the rows of all jobs, and returns them."""
    held, rows = await as_held(driver, jobs), await from_rows(driver, jobs)
    assert held == rows, f"held: {held}\nby the rows: {rows}"
    return held


# ---- what others do to money


async def limit(
    driver: Driver,
    scope: str,
    micros: int | None = None,
    tokens: int | None = None,
    *,
    period: Period = "total",
    at_limit: AtLimit = "stop",
    tenant: str = TENANT,
) -> None:
    """Sets a budget in the place of the one that there is."""
    name, budget = field_of(scope, period), {"micros": micros, "tokens": tokens, "at_limit": at_limit}
    if isinstance(driver.store, MemoryStore):
        driver.store.shelf.accounts.budgets[tenant, name] = budget
    else:
        assert isinstance(driver.store, JobStore)
        await driver.store.link.command("HSET", keys.budgets(tenant), name, json.dumps(budget))


async def lift(driver: Driver, scope: str, *, period: Period = "total", tenant: str = TENANT) -> None:
    """Takes a budget away."""
    if isinstance(driver.store, MemoryStore):
        driver.store.shelf.accounts.budgets.pop((tenant, field_of(scope, period)), None)
    else:
        assert isinstance(driver.store, JobStore)
        await driver.store.link.command("HDEL", keys.budgets(tenant), field_of(scope, period))


async def prune(driver: Driver, job: Job) -> None:
    """Forgets a job that has ended, as retention does."""
    if isinstance(driver.store, MemoryStore):
        del driver.store.shelf.records[job.id], driver.store.shelf.journals[job.id]
    else:
        assert isinstance(driver.store, JobStore)
        await driver.store.link.command("DEL", keys.job(job.id), keys.journal(job.id))
