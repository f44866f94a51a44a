"""When the conditions hold that alerts are raised for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_core.types import MICROS
from jobs import keys
from jobs.conditions import FAILURES_MS, HOUR_MS, MINUTE_MS, SAMPLE_MS, USUAL_MS, Conditions, Finding, Thresholds
from jobs.link import RedisLink, connect
from jobs.store import JobStore
from tests.jobs.driver import Driver

NOON = 1_800_014_400_000
"""2027-01-15, 12:00 UTC."""
MIDNIGHT = NOON + 12 * HOUR_MS
CENT = MICROS // 100


class Past:
    """Writes what has happened, as the job store and the ledger would."""

    def __init__(self, link: RedisLink) -> None:
        self.link = link
        self.jobs = 0

    async def ended(self, count: int, status: str, at: int = NOON - MINUTE_MS, tenant: str = "acme") -> list[str]:
        ids = [f"job_{self.jobs + n}" for n in range(count)]
        self.jobs += count
        for job_id in ids:
            await self.link.command("HSET", keys.job(job_id), "tenant", tenant, "status", status)
            await self.link.command("ZADD", keys.ENDED, at, job_id)
        return ids

    async def spent(self, micros: int, day: str = "2027-01-15", tenant: str = "acme") -> None:
        await self.link.command("SADD", keys.TENANTS, tenant)
        for window in (day, "total"):
            await self.link.command("HINCRBY", keys.meter(tenant, "tenant", window), "settled", micros)

    async def hours(self, conditions: Conditions, spends: Sequence[int], until: int) -> None:
        """What was spent hour by hour, at the beginning of each; the last hour ends at `until`."""
        await self.spent(0)
        begin = until - len(spends) * HOUR_MS
        await conditions.findings(begin - 1)
        for number, micros in enumerate(spends):
            await self.spent(micros, day="long ago")
            for minute in range(0, 60, 10):
                await conditions.findings(begin + number * HOUR_MS + minute * MINUTE_MS)


@pytest.fixture
def past(link: RedisLink) -> Past:
    return Past(link)


def look(link: RedisLink, **thresholds: float | None) -> Conditions:
    return Conditions(link, Thresholds(**thresholds))  # type: ignore[arg-type]


def names(findings: list[Finding]) -> list[str]:
    return [finding.name for finding in findings]


# ---- failures


async def test_more_than_five_percent_of_at_least_twenty(past: Past) -> None:
    conditions = look(past.link)
    await past.ended(19, "completed")
    assert await conditions.findings(NOON) == []
    await past.ended(1, "failed")  # 1 of 20 is 5 %, and not more
    assert await conditions.findings(NOON) == []
    (last,) = await past.ended(1, "failed")
    (found,) = await conditions.findings(NOON)
    assert (found.name, found.until_ms) == ("error_rate||acme", NOON + FAILURES_MS)
    assert found.summary == (
        "2 of 21 jobs of tenant acme that ended in the last 10 minutes failed: 9.5 %, more than 5 %; the last one is "
        f"{last}"
    )
    assert found.details == {"failed": 2, "ended": 21, "limit_percent": 5, "jobs": ["job_19", last]}


async def test_one_failure_of_one_job_is_no_rate(past: Past) -> None:
    await past.ended(19, "failed")
    assert await look(past.link).findings(NOON) == []
    await past.ended(1, "failed")
    assert len(await look(past.link).findings(NOON)) == 1


@pytest.mark.parametrize(
    ("at", "counts"),
    [(NOON - FAILURES_MS - 1, False), (NOON - FAILURES_MS, True), (NOON - 1, True), (NOON, False)],
)
async def test_the_window_is_ten_minutes(past: Past, at: int, counts: bool) -> None:
    await past.ended(1, "failed", at)
    assert bool(await look(past.link, error_jobs=1).findings(NOON)) is counts


async def test_tenants_are_told_apart(past: Past) -> None:
    await past.ended(30, "completed", tenant="well")
    await past.ended(30, "failed", tenant="ill")
    assert names(await look(past.link).findings(NOON)) == ["error_rate||ill"]


@pytest.mark.parametrize("status", ["cancelled", "expired", "completed"])
async def test_every_ending_counts_and_only_a_failure_is_one(past: Past, status: str) -> None:
    await past.ended(1, "failed")
    await past.ended(1, status)
    (found,) = await look(past.link, error_jobs=2, error_percent=49.9).findings(NOON)
    assert (found.details["failed"], found.details["ended"]) == (1, 2)
    assert await look(past.link, error_jobs=2, error_percent=50).findings(NOON) == []


async def test_what_goes_on_or_is_pruned_has_not_ended(past: Past) -> None:
    await past.ended(1, "queued")
    await past.link.command("ZADD", keys.ENDED, NOON - 1, "job_pruned")
    await past.ended(1, "failed")
    (found,) = await look(past.link, error_jobs=1).findings(NOON)
    assert found.details["ended"] == 1
    assert await look(past.link, error_jobs=2).findings(NOON) == []


async def test_hundreds_of_endings_are_all_counted(past: Past) -> None:
    await past.ended(450, "completed")
    await past.ended(50, "failed")
    (found,) = await look(past.link).findings(NOON)
    assert (found.details["failed"], found.details["ended"]) == (50, 500)


async def test_the_endings_are_those_of_the_job_store(store: JobStore) -> None:
    driver = Driver(store)
    for action in ("complete", "fail", "fail"):
        job, attempt = await driver.start()
        await driver.end(job, attempt, action)
    seconds, _ = await store.link.command("TIME")
    (found,) = await look(store.link, error_jobs=3).findings((int(seconds) + 1) * 1000)
    assert (found.tenant, found.details["failed"], found.details["ended"]) == ("acme", 2, 3)
    assert await store.link.command("SMEMBERS", keys.TENANTS) == {b"acme"}


# ---- a day's spend


async def test_a_day_that_costs_more_than_its_threshold(past: Past) -> None:
    conditions = look(past.link, daily_micros=10 * MICROS)
    await past.spent(10 * MICROS)
    await past.spent(50 * MICROS, tenant="rich", day="2027-01-14")
    assert await conditions.findings(NOON) == []
    await past.spent(1)
    assert await look(past.link).findings(NOON) == []
    (found,) = await conditions.findings(NOON)
    assert (found.name, found.until_ms) == ("daily_spend|2027-01-15|acme", MIDNIGHT)
    assert found.summary == "tenant acme has spent $10.000001 on 2027-01-15 (UTC), more than $10"
    assert found.details == {"day": "2027-01-15", "spent_usd": "10.000001", "limit_usd": "10"}
    assert names(await conditions.findings(MIDNIGHT - 1)) == [found.name]
    assert await conditions.findings(MIDNIGHT) == []


# ---- the rate of spending


async def test_an_hour_that_costs_more_than_three_usual_ones(past: Past) -> None:
    conditions = look(past.link)
    await past.hours(conditions, [MICROS, 2 * MICROS, 3 * MICROS, 6 * MICROS], NOON)
    assert await conditions.findings(NOON - 1) == []  # 6 is three times the mean of 1, 2 and 3, and not more
    await past.spent(1)
    (found,) = await conditions.findings(NOON - 1)
    assert (found.name, found.until_ms) == ("spend_rate||acme", NOON - 1 + HOUR_MS)
    assert found.summary == (
        "tenant acme has spent $6.000001 in the last hour, more than 3 times the $2 of its usual hour"
    )
    assert found.details == {"hour_usd": "6.000001", "usual_hour_usd": "2", "limit_times": 3}


async def test_pennies_alert_nobody(past: Past) -> None:
    conditions = look(past.link)
    await past.hours(conditions, [CENT, CENT, CENT, 99 * CENT], NOON)
    assert await conditions.findings(NOON - 1) == []
    await past.spent(CENT)
    assert names(await conditions.findings(NOON - 1)) == ["spend_rate||acme"]


@pytest.mark.parametrize(("hours", "known"), [([], False), ([CENT], False), ([CENT] * 2, False), ([CENT] * 3, True)])
async def test_what_is_usual_is_not_known_from_two_hours(past: Past, hours: list[int], known: bool) -> None:
    conditions = look(past.link)
    await past.hours(conditions, [*hours, 100 * MICROS], NOON)
    assert bool(await conditions.findings(NOON - 1)) is known


async def test_idle_hours_are_no_usual_ones(past: Past) -> None:
    conditions = look(past.link)
    await past.hours(conditions, [2 * MICROS, 0, 0, 2 * MICROS, 0, 0, 0, 0, 2 * MICROS, 0, 0, 0, 6 * MICROS], NOON)
    assert await conditions.findings(NOON - 1) == []
    await past.spent(MICROS)
    assert names(await conditions.findings(NOON - 1)) == ["spend_rate||acme"]


async def test_what_is_long_ago_is_forgotten(past: Past) -> None:
    conditions = look(past.link)
    await past.hours(conditions, [100 * MICROS] * 3, NOON)
    later = NOON + USUAL_MS + 7 * HOUR_MS
    await past.hours(conditions, [MICROS, MICROS, MICROS, MICROS, 4 * MICROS], later)
    assert names(await conditions.findings(later - 1)) == ["spend_rate||acme"]
    first, *_ = await past.link.command("ZRANGE", keys.spending("acme"), 0, 0)
    assert int(first.split(b":")[0]) > NOON
    assert 0 < await past.link.command("PTTL", keys.spending("acme")) <= USUAL_MS + 2 * HOUR_MS


async def test_an_idle_tenant_is_sampled_once_and_a_busy_one_every_five_minutes(past: Past) -> None:
    conditions = look(past.link)
    await past.spent(0, tenant="idle")
    for minute in range(60):
        await past.spent(1)
        await conditions.findings(NOON + minute * MINUTE_MS)
    assert await past.link.command("ZCARD", keys.spending("idle")) == 1
    assert await past.link.command("ZCARD", keys.spending("acme")) == HOUR_MS // SAMPLE_MS


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5 * MICROS)), min_size=1, max_size=10))
def test_the_last_hour_is_known_to_within_five_minutes(redis_url: str, steps: list[tuple[int, int]]) -> None:
    """Against the sum of what was spent, minute by minute."""
    minutes = [0] * 65 + [amount for wait, amount in steps for amount in [*[0] * wait, amount]]

    async def run() -> None:
        link = RedisLink(connect(redis_url))
        await link.command("FLUSHALL")
        past, conditions = Past(link), look(link, rate_times=0, rate_floor_micros=0)
        for hour in range(9, 4, -1):  # so that what is usual is known
            await link.command("ZADD", keys.spending("acme"), NOON - hour * HOUR_MS, f"{NOON - hour * HOUR_MS}:0")
        for minute in range(65, len(minutes)):
            await past.spent(minutes[minute])
            found = await conditions.findings(NOON + minute * MINUTE_MS)
            shown = round(float(found[0].details["hour_usd"]) * MICROS) if found else 0
            assert sum(minutes[minute - 59 : minute + 1]) <= shown <= sum(minutes[minute - 65 : minute + 1])
        await link.aclose()

    asyncio.run(run())
