"""The proof that no money went astray: every total is made again from the rows of the ledger, and compared."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from agent_core.types import USAGE_FIELDS, Json, micros, usd
from jobs import keys
from jobs.errors import NotFoundError
from jobs.journal import ledger_rows
from jobs.link import RedisLink
from jobs.status import ENDED
from jobs.store import JobStore
from jobs.usage import TOKENS, parse_counter

JOBS_AT_ONCE = 20
WHOSE = ("agent", "user", "session_id", "ancestors", "status", "attempt", "writes")
IN_TREE = ("spent", "held", "spent_tokens", "held_tokens")
"""Figures of a record that include those of child jobs."""
IN_JOB = ("cost", "reserved", "open", *TOKENS, *IN_TREE)
MONEY = frozenset({"cost", "reserved", "spent", "held", "settled"})
KEPT_DAYS = {"session": 90, "day": 40, "month": 400, "usage": 400, "charged": 100}
"""For how many days `money.lua` keeps what is not used any more."""
MOVED = "it moved during the audit"
PRUNED = "a job that was charged in it is pruned, or may be"
Record = dict[str, str]
Figures = Counter[str]
Counted = dict[str, Figures]
"""By the key in Redis."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure under a key of Redis that is not what the rows come to: micro-dollars, tokens, or how many there are."""

    key: str
    figure: str
    recorded: int
    rows: int

    def to_json(self) -> Json:
        if self.figure.rpartition(":")[2] not in MONEY:
            return {"key": self.key, "figure": self.figure, "recorded": self.recorded, "rows": self.rows}
        recorded, rows = usd(self.recorded), usd(self.rows)
        return {"key": self.key, "figure": f"{self.figure}_usd", "recorded": recorded, "rows": rows}


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
            if recorded[figure] != rows[figure]:
                self.differences.append(Difference(key, figure, recorded[figure], rows[figure]))

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

    It may run while jobs do: what moves meanwhile stays unchecked. So do the days, months and totals of which a job is
    pruned, for its rows are gone with it. Raises UnavailableError.
    """
    store, books = JobStore(link), _Books(tenant)
    before = await _counters(link, tenant)
    ids = [job_id.decode() for job_id in await link.command("ZRANGE", keys.all_jobs(tenant), 0, -1)]
    for some in _chunks(ids):
        for job_id, read in zip(some, await asyncio.gather(*(_read(store, one) for one in some)), strict=True):
            if read is not None:
                books.enter(job_id, *read)
    for some in _chunks(list(books.records)):
        again = await asyncio.gather(*(_record(link, one) for one in some))
        books.moving |= {one for one, record in zip(some, again, strict=True) if record != books.records[one]}
    after = await _counters(link, tenant)
    seconds, _ = await link.command("TIME")
    return books.close(before, after, datetime.fromtimestamp(int(seconds), UTC).date())


class _Books:
    """Every total of a tenant, made from rows, by the key in Redis that it stands under."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.rows = 0
        self.records: dict[str, Record] = {}
        self.moving: set[str] = set()
        """Jobs whose record was another one at the end."""
        self._totals: defaultdict[str, Figures] = defaultdict(Counter)
        self._newest: dict[str, str] = {}
        """The day of the newest row under a key."""
        self._open: defaultdict[str, set[str]] = defaultdict(set)
        """The jobs with an open call under a key."""

    def enter(self, job_id: str, record: Record, rows: list[Json]) -> None:
        """Adds a job's rows to every total that they belong to."""
        self.records[job_id] = record
        self.rows += len(rows)
        for row in rows:
            for key, figures in self._entries(job_id, record, row):
                self._totals[key] += Counter(figures)
                self._newest[key] = max(row["created_at"][:10], self._newest.get(key, ""))
                if row["settled_usd"] is None:
                    self._open[key].add(job_id)

    def _entries(self, job_id: str, record: Record, row: Json) -> Iterator[tuple[str, dict[str, int]]]:
        """What a row adds to the figures of which keys."""
        closed, tokens, day = row["settled_usd"] is not None, row["tokens"], row["created_at"][:10]
        amount = micros(row["settled_usd"] if closed else row["reserved_usd"])
        used = {name: int((row["usage"] or {}).get(field) or 0) for name, field in USAGE_FIELDS}
        yield keys.job(job_id), {"cost": amount, **used} if closed else {"reserved": amount, "open": 1}
        in_record, in_meter = ("spent", "settled") if closed else ("held", "reserved")
        for payer in (job_id, *record["ancestors"].split()):
            yield keys.job(payer), {in_record: amount, f"{in_record}_tokens": tokens}
        named = {"agent": record["agent"], "user": record["user"], "session": record["session_id"]}
        for scope in ("tenant", *(f"{kind}:{name}" for kind, name in named.items() if name)):
            for window in ("total", day[:7], day):
                yield keys.meter(self.tenant, scope, window), {in_meter: amount, f"{in_meter}_tokens": tokens}
        if closed:
            label = _label((record["agent"], record["user"], row["model"], row["role"]))
            counts = {"cost": amount, "calls": 1, **used}
            yield keys.usage(self.tenant, day), {f"{label}:{name}": count for name, count in counts.items()}
            yield keys.charged(self.tenant, day), {job_id: 1}

    def close(self, before: Counted, after: Counted, today: date) -> Audit:
        """Compares the totals with what is recorded; `before` and `after` were read around the rows."""
        found = Audit(len(self.records), self.rows)
        incomplete = self._incomplete_days(after, today)
        for job_id, record in self.records.items():
            self._compare_job(found, job_id, record, anything_pruned=bool(incomplete))
        counted = [key for key in self._totals if not key.startswith(keys.JOB_PREFIX)]
        for key in sorted({*counted, *after}):
            window = key.rpartition(":")[2]
            if before.get(key) != after.get(key) or self._open[key] & self.moving:
                found.unchecked[key] = MOVED
            elif incomplete if window == "total" else any(day.startswith(window) for day in incomplete):
                found.unchecked[window] = PRUNED
            elif key in after or not self._expired(key, today):
                recorded, rows = after.get(key, Counter()), self._totals[key]
                if key.startswith(keys.CHARGED_PREFIX):  # a job may be in it for a call that was never made
                    recorded, rows = Counter(dict.fromkeys(recorded & rows, 1)), Counter(dict.fromkeys(rows, 1))
                found.compare(key, recorded, rows)
        return found

    def _compare_job(self, found: Audit, job_id: str, record: Record, *, anything_pruned: bool) -> None:
        key = keys.job(job_id)
        if job_id in self.moving or self._open[key] & self.moving:
            found.unchecked[key] = MOVED
            return
        recorded = Counter({name: int(record[name] or 0) for name in IN_JOB})
        rows = self._totals[key].copy()
        if record["status"] in ENDED:
            rows["open"] = 0
        if anything_pruned and any(recorded[name] > rows[name] for name in IN_TREE):
            found.unchecked[key] = "a child job of it may be pruned"
            for name in IN_TREE:
                del recorded[name], rows[name]
        found.compare(key, recorded, rows)

    def _incomplete_days(self, after: Counted, today: date) -> set[str]:
        """Days that a job was charged in of which the rows are gone, or of which that is not known any more."""
        days = {key.rpartition(":")[2] for key in after if key.startswith((keys.USAGE_PREFIX, keys.CHARGED_PREFIX))}
        incomplete: set[str] = set()
        for day in days:
            charged = after.get(keys.charged(self.tenant, day))
            forgotten = charged is None and _age(day, today) > KEPT_DAYS["charged"]
            if forgotten or not self.records.keys() >= (charged or {}).keys():
                incomplete.add(day)
        return incomplete

    def _expired(self, key: str, today: date) -> bool:
        """Whether what stood under a key was forgotten by now."""
        kind = key.removeprefix(keys.PREFIX).partition(":")[0]
        if key.startswith(keys.meter(self.tenant, "session", "")):
            kind = "session"
        elif kind == "meter":
            kind = {5: "total", 7: "month", 10: "day"}[len(key.rpartition(":")[2])]
        return kind in KEPT_DAYS and _age(self._newest[key], today) > KEPT_DAYS[kind]


# ---- reading


async def _read(store: JobStore, job_id: str) -> tuple[Record, list[Json]] | None:
    """A job's record and rows, None when it is pruned."""
    try:
        record, lines = await asyncio.gather(_record(store.link, job_id), store.lines(job_id))
    except NotFoundError:
        return None
    return (record, ledger_rows(job_id, lines)) if record["status"] else None


async def _record(link: RedisLink, job_id: str) -> Record:
    names = (*WHOSE, *IN_JOB)
    values = await link.command("HMGET", keys.job(job_id), *names)
    return {name: (value or b"").decode() for name, value in zip(names, values, strict=True)}


async def _counters(link: RedisLink, tenant: str) -> Counted:
    """The figures under each meter, day of usage and set of charged jobs of a tenant."""
    names: set[str] = set()
    cursor: bytes | int | None = None
    while cursor is None or int(cursor):
        cursor, found = await link.command("SCAN", cursor or 0, "MATCH", f"{keys.PREFIX}*:{tenant}:*", "COUNT", 1000)
        names.update(name.decode() for name in found)
    of_tenant = [f"{prefix}{tenant}:" for prefix in (keys.METER_PREFIX, keys.USAGE_PREFIX, keys.CHARGED_PREFIX)]
    wanted = sorted(name for name in names if name.startswith(tuple(of_tenant)))
    return dict(zip(wanted, await asyncio.gather(*(_figures(link, name) for name in wanted)), strict=True))


async def _figures(link: RedisLink, key: str) -> Figures:
    if key.startswith(keys.CHARGED_PREFIX):
        return Counter({member.decode(): 1 for member in await link.command("SMEMBERS", key)})
    raw = await link.command("HGETALL", key)
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    if key.startswith(keys.USAGE_PREFIX):
        parsed = ((*parse_counter(name), int(amount)) for name, amount in pairs)
        return Counter({f"{_label(words)}:{counter}": amount for words, counter, amount in parsed})
    return Counter({name.decode(): int(amount) for name, amount in pairs})


def _label(words: Sequence[str]) -> str:
    return json.dumps(words, ensure_ascii=False, separators=(",", ":"))


def _age(day: str, today: date) -> int:
    return (today - date.fromisoformat(day)).days


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + JOBS_AT_ONCE] for start in range(0, len(ids), JOBS_AT_ONCE))
