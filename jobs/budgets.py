"""Budgets: limits on what a tenant, its users, its sessions, its agents and each of its jobs may spend.

`record.lua` holds every call to them. Here they are set, removed, and looked at beside what has been spent.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from agent_core.outcomes import Refusal
from agent_core.types import AtLimit, Json, usd
from jobs import actions, keys
from jobs.errors import ConflictError, InvalidError, NotFoundError
from jobs.store import JobStore

Period = Literal["total", "month", "day"]
NAMED = re.compile(r"(user|session|agent):[^\x00-\x1f\x7f]{1,128}")
DEFAULTS = ("user:*", "session:*", "agent:*", "job:*")
"""Each holds for every one of its kind that has no budget of its own for the period; `job:*` for every job."""
SCOPES = f"tenant, user:NAME, session:ID, agent:NAME, {', '.join(DEFAULTS)}"
NAME_IN_RECORD = {"user": "user", "session": "session_id", "agent": "agent"}


@dataclass(frozen=True, slots=True)
class ScopeBudget:
    """What a scope may use in each window of a period; None is no limit of that kind."""

    scope: str
    period: Period
    micros: int | None
    tokens: int | None
    at_limit: AtLimit = "stop"


@dataclass(frozen=True, slots=True)
class Meter:
    """What a scope has used in one window, and what open calls have reserved; amounts in micro-dollars."""

    settled: int = 0
    reserved: int = 0
    settled_tokens: int = 0
    reserved_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget in its current window. A default has no meter: each that it holds for has its own."""

    budget: ScopeBudget
    window: str
    meter: Meter | None

    def to_json(self) -> Json:
        budget = self.budget
        spent = reserved = remaining = tokens = reserved_tokens = remaining_tokens = None
        if self.meter is not None:
            spent, tokens = usd(self.meter.settled), self.meter.settled_tokens
            reserved, reserved_tokens = usd(self.meter.reserved), self.meter.reserved_tokens
            if budget.micros is not None:
                remaining = usd(max(0, budget.micros - self.meter.settled - self.meter.reserved))
            if budget.tokens is not None:
                remaining_tokens = max(0, budget.tokens - tokens - reserved_tokens)
        return {
            "scope": budget.scope,
            "period": budget.period,
            "window": self.window,
            "usd": None if budget.micros is None else usd(budget.micros),
            "tokens": budget.tokens,
            "at_limit": budget.at_limit,
            "spent_usd": spent,
            "reserved_usd": reserved,
            "remaining_usd": remaining,
            "spent_tokens": tokens,
            "reserved_tokens": reserved_tokens,
            "remaining_tokens": remaining_tokens,
        }


class Budgets:
    """The budgets of tenants. Raises UnavailableError when Redis is away."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._link = store.link

    async def put(self, tenant: str, budget: ScopeBudget) -> Standing:
        """Sets a budget, in the place of the one that its scope has for the period, and lets jobs go on that were held.

        Raises InvalidError for a scope that is none, and for a budget without a limit.
        """
        check_scope(budget.scope, budget.period)
        if budget.micros is None and budget.tokens is None:
            raise InvalidError("a budget needs usd, tokens or both; to lift it, delete it", code="no_limit")
        limits = {"micros": budget.micros, "tokens": budget.tokens, "at_limit": budget.at_limit}
        field = field_of(budget.scope, budget.period)
        await self._link.command("HSET", keys.budgets(tenant), field, json.dumps(limits))
        await self._resume_held(tenant, budget.scope, budget.period)
        (standing,) = await self._standings(tenant, [budget])
        return standing

    async def remove(self, tenant: str, scope: str, period: Period) -> None:
        """Lifts a budget and lets jobs go on that it held. Raises NotFoundError."""
        if not await self._link.command("HDEL", keys.budgets(tenant), field_of(scope, period)):
            raise NotFoundError(
                f"there is no budget of {scope[:200]!r} for the period {period}", code="budget_not_found"
            )
        await self._resume_held(tenant, scope, period)

    async def all(self, tenant: str) -> list[Standing]:
        """Every budget of a tenant, by scope and period."""
        raw = await self._link.command("HGETALL", keys.budgets(tenant))
        pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
        return await self._standings(tenant, [_parse(*pair) for pair in sorted(pairs)])

    async def let_go_if_changed(self, tenant: str, job_id: str, refusal: Refusal) -> None:
        """Resumes a job that was just held when the limit that refused its call is no longer what it was.

        Who changed it after the refusal and before the hold could not see that the job waits for it.
        """
        if refusal.scope == "job":  # its own budget: that is raised by whoever resumes it
            return
        own = f"{refusal.scope}|{refusal.period}"
        default = f"{refusal.scope.partition(':')[0]}:*|{refusal.period}"
        texts = await self._link.command("HMGET", keys.budgets(tenant), own, default)
        if _limit(texts[0] or texts[1], refusal) != refusal.limit:
            with suppress(ConflictError, NotFoundError):  # someone else was quicker
                await actions.resume(self._store, tenant, job_id)

    async def _standings(self, tenant: str, budgets: list[ScopeBudget]) -> list[Standing]:
        seconds, _ = await self._link.command("TIME")
        windows = [window_of(budget.period, int(seconds)) for budget in budgets]
        meters = await asyncio.gather(
            *(self._meter(tenant, b.scope, window) for b, window in zip(budgets, windows, strict=True))
        )
        return [Standing(*found) for found in zip(budgets, windows, meters, strict=True)]

    async def _meter(self, tenant: str, scope: str, window: str) -> Meter | None:
        if scope in DEFAULTS:
            return None
        key = keys.meter(tenant, scope, window)
        counts = await self._link.command("HMGET", key, "settled", "reserved", "settled_tokens", "reserved_tokens")
        return Meter(*(int(count or 0) for count in counts))

    async def _resume_held(self, tenant: str, scope: str, period: Period) -> None:
        """Queues the jobs that a changed budget held; one that still has no room is held again by its next call."""
        held = [job_id.decode() for job_id in await self._link.command("ZRANGE", keys.HELD, 0, -1)]
        kind, _, name = scope.partition(":")
        fields = ("tenant", "held_by", NAME_IN_RECORD.get(kind, "id"))
        records = await asyncio.gather(*(self._link.command("HMGET", keys.job(job_id), *fields) for job_id in held))
        by_itself, by_default = (tenant, field_of(scope, period)), (tenant, field_of(f"{kind}:*", period), name)
        for job_id, record in zip(held, records, strict=True):
            found = tuple((word or b"").decode() for word in record)
            if by_itself == found[:2] or by_default == found:
                with suppress(ConflictError, NotFoundError):  # someone else was quicker
                    await actions.resume(self._store, tenant, job_id)


def check_scope(scope: str, period: Period) -> None:
    """Raises InvalidError for a scope that no budget can have."""
    if scope != "tenant" and scope not in DEFAULTS and not NAMED.fullmatch(scope):
        raise InvalidError(f"{scope[:200]!r} is no scope; there are {SCOPES}", code="invalid_scope")
    if scope == "job:*" and period != "total":
        raise InvalidError("a budget of job:* has the period total: a job is spent on once", code="invalid_scope")


def field_of(scope: str, period: Period) -> str:
    """The field of a budget, also as `held_by` names it."""
    return f"{scope}|{period}"


def window_of(period: Period, seconds: int) -> str:
    """The window of a period that a time since the epoch falls into."""
    day = datetime.fromtimestamp(seconds, UTC).date().isoformat()
    return {"total": "total", "month": day[:7], "day": day}[period]


def _limit(text: bytes | None, refusal: Refusal) -> int | None:
    """What a budget as it is written limits in the refusal's unit, None when it stops nobody there."""
    limits = json.loads(text) if text else {}
    amount: int | None = limits.get("micros" if refusal.unit == "usd" else "tokens")
    return amount if limits.get("at_limit") == refusal.at_limit else None


def _parse(field: bytes, text: bytes) -> ScopeBudget:
    scope, _, period = field.decode().rpartition("|")
    raw: dict[str, Any] = json.loads(text)
    return ScopeBudget(scope, period, raw["micros"], raw["tokens"], raw["at_limit"])  # type: ignore[arg-type]
