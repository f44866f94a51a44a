"""The conditions that people are told about: a tenant spends too much, or too fast, or too many of its jobs fail.

All of them are read off what is there anyway, the meters and the list of ended jobs. Only what is spent in an hour
needs more: a sample of each tenant's meter every few minutes in which it moved.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from agent_core.types import Json, usd
from jobs import keys
from jobs.link import RedisLink
from jobs.status import ENDED

Condition = Literal["daily_spend", "error_rate", "spend_rate"]
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
FAILURES_MS = 10 * MINUTE_MS
"""The window of the error rate."""
SAMPLE_MS = 5 * MINUTE_MS
"""Samples of a meter are so far apart, so the last hour's spend is known to within this time."""
USUAL_MS = 7 * 24 * HOUR_MS
"""What is usual is learned from so long before the last hour."""
USUAL_HOURS = 3
"""With fewer hours in which a tenant spent anything, nobody can say what is usual for it."""
NAMED_JOBS = 5
CHUNK = 200
"""Questions that go to Redis at once, so that a heartbeat on the same connection need not wait for long."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a condition holds; amounts in micro-dollars.

    A tenant's day costs more than `daily_micros` (None: whatever it costs); more than `error_percent` of its jobs that
    ended in the last ten minutes failed, of at least `error_jobs`; its last hour cost more than `rate_times` its usual
    one, and at least `rate_floor_micros`.
    """

    daily_micros: int | None = None
    error_percent: float = 5
    error_jobs: int = 20
    rate_times: float = 3
    rate_floor_micros: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition that holds for a tenant. One alert is made of it for each `window`, and stands until `until_ms` at
    least.
    """

    condition: Condition
    tenant: str
    until_ms: int
    summary: str
    details: Json = field(default_factory=dict)
    window: str = ""

    @property
    def name(self) -> str:
        """What it has in common with the same finding a minute later."""
        return f"{self.condition}|{self.window}|{self.tenant}"


class Conditions:
    """Looks at all tenants. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink, thresholds: Thresholds) -> None:
        self._link = link
        self._limits = thresholds

    async def findings(self, now_ms: int) -> list[Finding]:
        """Every condition that holds at a time of Redis's clock."""
        found = await self._failing(now_ms)
        tenants = sorted(tenant.decode() for tenant in await self._link.command("SMEMBERS", keys.TENANTS))
        for some in _chunks(tenants):
            for spending in await asyncio.gather(*(self._spending(tenant, now_ms) for tenant in some)):
                found += spending
        return found

    # ---- failures

    async def _failing(self, now_ms: int) -> list[Finding]:
        since = now_ms - FAILURES_MS
        ids = await self._link.command("ZRANGEBYSCORE", keys.ENDED, since, f"({now_ms}")
        ended: defaultdict[str, int] = defaultdict(int)
        failed: defaultdict[str, list[str]] = defaultdict(list)
        for some in _chunks([job_id.decode() for job_id in ids]):
            asked = (self._link.command("HMGET", keys.job(job_id), "tenant", "status") for job_id in some)
            for job_id, record in zip(some, await asyncio.gather(*asked), strict=True):
                tenant, status = ((word or b"").decode() for word in record)
                if status in ENDED:  # otherwise it is pruned, or was made to go on
                    ended[tenant] += 1
                if status == "failed":
                    failed[tenant].append(job_id)
        return [
            self._too_many(tenant, failed[tenant], count, now_ms)
            for tenant, count in ended.items()
            if count >= self._limits.error_jobs and 100 * len(failed[tenant]) > self._limits.error_percent * count
        ]

    def _too_many(self, tenant: str, failed: list[str], ended: int, now_ms: int) -> Finding:
        percent, limit = 100 * len(failed) / ended, self._limits.error_percent
        return Finding(
            "error_rate",
            tenant,
            now_ms + FAILURES_MS,
            f"{len(failed)} of {ended} jobs of tenant {tenant} that ended in the last 10 minutes failed: "
            f"{percent:.1f} %, more than {limit:g} %; the last one is {failed[-1]}",
            {"failed": len(failed), "ended": ended, "limit_percent": limit, "jobs": failed[-NAMED_JOBS:]},
        )

    # ---- money

    async def _spending(self, tenant: str, now_ms: int) -> list[Finding]:
        day = datetime.fromtimestamp(now_ms / 1000, UTC).date()
        today, total = await asyncio.gather(
            self._link.command("HGET", keys.meter(tenant, "tenant", day.isoformat()), "settled"),
            self._link.command("HGET", keys.meter(tenant, "tenant", "total"), "settled"),
        )
        found = [self._fast(tenant, now_ms, await self._hours(tenant, int(total or 0), now_ms))]
        spent, limit = int(today or 0), self._limits.daily_micros
        if limit is not None and spent > limit:
            midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
            found.append(
                Finding(
                    "daily_spend",
                    tenant,
                    int(midnight.timestamp() * 1000),
                    f"tenant {tenant} has spent ${usd(spent)} on {day} (UTC), more than ${usd(limit)}",
                    {"day": str(day), "spent_usd": usd(spent), "limit_usd": usd(limit)},
                    window=str(day),
                )
            )
        return [finding for finding in found if finding]

    def _fast(self, tenant: str, now_ms: int, hours: tuple[int, int] | None) -> Finding | None:
        if hours is None:
            return None
        (spent, usual), times = hours, self._limits.rate_times
        if spent < self._limits.rate_floor_micros or spent <= times * usual:
            return None
        return Finding(
            "spend_rate",
            tenant,
            now_ms + HOUR_MS,
            f"tenant {tenant} has spent ${usd(spent)} in the last hour, more than {times:g} times the ${usd(usual)} of "
            "its usual hour",
            {"hour_usd": usd(spent), "usual_hour_usd": usd(usual), "limit_times": times},
        )

    async def _hours(self, tenant: str, total: int, now_ms: int) -> tuple[int, int] | None:
        """What a tenant spent in the last hour and in its usual one; None while too little is known of it.

        The usual hour is the mean of those hours of the last seven days in which it spent anything: so nobody is told
        of each morning that it is busier than the night.
        """
        key, hour_ago = keys.spending(tenant), now_ms - HOUR_MS
        samples = [_parse(member) for member in await self._link.command("ZRANGE", key, 0, -1)]
        if not samples or (samples[-1][1] != total and now_ms - samples[-1][0] >= SAMPLE_MS):
            await asyncio.gather(
                self._link.command("ZADD", key, now_ms, f"{now_ms}:{total}"),
                self._link.command("ZREMRANGEBYSCORE", key, "-inf", hour_ago - USUAL_MS),
                self._link.command("PEXPIRE", key, USUAL_MS + 2 * HOUR_MS),
            )
        before = [sample for sample in samples if sample[0] <= hour_ago]
        busy = {at // HOUR_MS for at, _ in before[1:]}
        if len(busy) < USUAL_HOURS:
            return None
        return total - before[-1][1], (before[-1][1] - before[0][1]) // len(busy)


def _parse(member: bytes) -> tuple[int, int]:
    """A sample: when it was taken, and all that was spent until then."""
    at, _, total = member.decode().partition(":")
    return int(at), int(total)


def _chunks(items: list[str]) -> Iterator[list[str]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
