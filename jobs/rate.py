"""How many requests a tenant may make: a token bucket in Redis, by its clock, for all API processes together."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs import keys
from jobs.link import RedisLink
from jobs.recent import Recent
from jobs.scripts import script


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket of `burst` tokens that gets `per_minute` of them in a minute, evenly."""

    per_minute: int
    burst: int

    @property
    def window(self) -> int:
        """Seconds in which an empty bucket fills."""
        return math.ceil(self.burst * 60 / self.per_minute)


@dataclass(frozen=True, slots=True)
class Standing:
    """What came of a request for a token: how many are left, and in how many seconds there is one more."""

    rate: Rate
    allowed: bool
    left: int
    more_in: int


class RateLimiter:
    """The buckets of tenants. Raises UnavailableError when Redis is away: what cannot be counted is not allowed."""

    def __init__(self, link: RedisLink, recent: Recent) -> None:
        self._link = link
        self._recent = recent

    async def take(self, tenant: str, tokens: int = 1) -> Standing | None:
        """Takes tokens out of the tenant's bucket, if there are as many; 0 only looks. None for one without a limit."""
        limits = keys.limits(tenant)
        rate = await self._recent.get(limits, lambda: self._rate(limits))
        if rate is None:
            return None
        args = [rate.per_minute, rate.burst, tokens]
        taken, left, micros = await self._link.script(script("rate"), [keys.rate(tenant)], args, patient=False)
        return Standing(rate, bool(taken), left, math.ceil(micros / 1_000_000))

    async def _rate(self, limits: str) -> Rate | None:
        per_minute, burst = await self._link.command("HMGET", limits, "requests_per_minute", "burst")
        return Rate(int(per_minute), int(burst or per_minute)) if per_minute else None
