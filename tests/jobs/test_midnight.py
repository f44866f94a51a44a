"""Days and months of money: when they end, and that a call is charged to the day of its reservation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import keys
from jobs.link import milliseconds
from jobs.moves import Hold
from jobs.scripts import script
from jobs.store import JobStore
from jobs.testing import MemoryStore
from tests.jobs.books import as_held, check, from_rows, limit
from tests.jobs.driver import ENDED_LEASE, HOUR_MS, TENANT, Driver
from tests.jobs.spender import Spender

DAY_MS = 24 * HOUR_MS
ASK = """
local found = {}
for i, now in ipairs(ARGV) do
  now = tonumber(now)
  found[i] = { today(now), window_end('day', now), window_end('month', now), window_end('total', now) }
end
return found
"""


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


# ---- the calendar of money.lua


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def by_lua(client: redis.Redis, moments: list[int]) -> Any:
    return client.eval(f"{script('money').text}\n{ASK}", 0, *moments)


def by_python(moment: int) -> list[str]:
    today = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment)).date()
    first = date(today.year + today.month // 12, today.month % 12 + 1, 1)
    ends = [int(datetime(*day.timetuple()[:3], tzinfo=UTC).timestamp()) for day in (today + timedelta(days=1), first)]
    return [today.isoformat(), *(str(end * 1000) for end in ends), "+inf"]


def test_every_day_of_forty_years_is_that_of_python(client: redis.Redis) -> None:
    years = [(2020, 2060), (2000, 2001), (2100, 2101), (1970, 1971)]
    noons = [noon for first, last in years for noon in range(ms(first, 1, 1, 12), ms(last, 1, 1), DAY_MS)]
    for start in range(0, len(noons), 5_000):
        some = noons[start : start + 5_000]
        assert by_lua(client, some) == [by_python(moment) for moment in some]


def test_the_calendar_is_right_to_the_millisecond(client: redis.Redis) -> None:
    near = st.builds(
        lambda day, ms: max(0, day * DAY_MS + ms), st.integers(0, 2_900_000), st.sampled_from([-1, 0, 1, DAY_MS - 1])
    )
    moments = near | st.integers(0, ms(9999, 11, 30))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(moments, min_size=1, max_size=50))
    def check(some: list[int]) -> None:
        assert by_lua(client, some) == [by_python(moment) for moment in some]

    check()


# ---- the twin's clock is the test's


class Clock:
    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


LATE = ms(2026, 11, 30, 23, 59, 59)
EARLY = ms(2026, 12, 1, 0, 0, 0)


@pytest.fixture
def clock() -> Clock:
    return Clock(LATE)


@pytest.fixture
def driver(clock: Clock) -> Driver:
    return Driver(MemoryStore(clock))


async def test_a_call_is_charged_to_the_day_and_month_of_its_reservation(driver: Driver, clock: Clock) -> None:
    spending = await Spender.start(driver.store, user="u1")
    call = await spending.begin()
    clock.now = EARLY
    await spending.end(call, settled=70)
    await spending.spend(5)
    books = await check(driver, spending.job)
    meters = {window: meter["settled"] for (scope, window), meter in books.meters.items() if scope == "user:u1"}
    assert meters == {"total": 75, "2026-11": 70, "2026-11-30": 70, "2026-12": 5, "2026-12-01": 5}
    assert {(day, count) for (day, _, counter), count in books.usage.items() if counter == "cost"} == {
        ("2026-11-30", 70),
        ("2026-12-01", 5),
    }


async def test_a_new_day_has_all_its_room_whatever_is_open_from_the_day_before(driver: Driver, clock: Clock) -> None:
    await limit(driver, "tenant", 1000, period="day")
    spending = await Spender.start(driver.store)
    await spending.begin(reserved=1000)
    assert (await spending.refused(reserved=1)).until_ms == EARLY
    clock.now = EARLY
    await spending.begin(reserved=1000)
    assert (await spending.refused(reserved=1)).until_ms == EARLY + DAY_MS


async def test_a_month_counts_all_its_days_and_ends_with_the_last(driver: Driver, clock: Clock) -> None:
    await limit(driver, "tenant", 1000, period="month")
    spending = await Spender.start(driver.store)
    for day in (1, 15, 30):
        clock.now = ms(2026, 11, day)
        await spending.end(await spending.begin(reserved=300), settled=300)
    refusal = await spending.refused(reserved=101)
    assert (refusal.left, refusal.until_ms) == (100, EARLY)
    clock.now = EARLY
    await spending.begin(reserved=1000)


async def test_a_share_is_told_of_the_day_of_the_reservation(driver: Driver, clock: Clock) -> None:
    await limit(driver, "tenant", 1000, period="day")
    spending = await Spender.start(driver.store)
    await spending.end(await spending.begin(reserved=700), settled=700)
    late = await spending.begin(reserved=300)
    clock.now = EARLY
    await spending.end(await spending.begin(reserved=700), settled=700)
    await spending.end(late, settled=300)
    found = [line.data for line in await driver.store.lines(spending.job.id) if line.type == "budget.reached"]
    assert [(about["percent"], about["spent"]) for about in found] == [(80, 1000), (100, 1000)]


async def test_a_call_whose_worker_is_lost_over_midnight_is_charged_to_the_day_before(
    driver: Driver, clock: Clock
) -> None:
    spending = await Spender.start(driver.store, lease=60)
    await spending.begin()
    clock.now = EARLY + 60_000
    assert await driver.rescue(spending.job.id, spending.attempt) is not None
    books = await check(driver, spending.job)
    assert books.meters["tenant", "2026-11-30"]["settled"] == 900
    assert ("tenant", "2026-12-01") not in books.meters


async def test_the_hold_of_a_day_ends_at_midnight(driver: Driver, clock: Clock) -> None:
    await limit(driver, "user:*", 1000, period="day", at_limit="pause")
    spending = await Spender.start(driver.store, user="u1")
    await spending.spend(900)
    refusal = await spending.refused()
    hold = Hold(refusal.held_by, refusal.until_ms)
    await driver.end(spending.job, spending.attempt, "hold", hold=hold)
    clock.now = EARLY - 1
    await driver.sweep()
    assert await driver.status(spending.job) == "paused"
    clock.now = EARLY
    await driver.sweep()
    assert await driver.status(spending.job) == "queued"


# ---- Redis has its own clock, so what was reserved yesterday is written by hand


def day(ago: int) -> str:
    return (datetime.now(UTC) - timedelta(days=ago)).date().isoformat()


async def reserved_on(store: JobStore, spending: Spender, call: str, then: str) -> None:
    """Moves an open reservation to another day, with what it is counted in."""
    link, record = store.link, keys.job(spending.job.id)
    held = json.loads(await link.command("HGET", record, f"r:{call}"))
    for scope in ("tenant", "agent:clerk", "user:u1"):
        for window in {then, then[:7], held["day"], held["day"][:7]} - {"total"}:
            counts = window in (then, then[:7])
            gone = window in (held["day"], held["day"][:7])
            for name, amount in (("reserved", held["reserved"]), ("reserved_tokens", held["tokens"])):
                await link.command("HINCRBY", keys.meter(TENANT, scope, window), name, (counts - gone) * amount)
    await link.command("HSET", record, f"r:{call}", json.dumps({**held, "day": then}))


@pytest.mark.parametrize("ago", [1, 40])
@pytest.mark.parametrize("how", ["settled", "lost"])
async def test_in_redis_a_call_is_charged_to_the_day_of_its_reservation(store: JobStore, how: str, ago: int) -> None:
    driver, then = Driver(store), day(ago)
    spending = await Spender.start(store, user="u1", lease=ENDED_LEASE)
    call = await spending.begin()
    await reserved_on(store, spending, call, then)
    if how == "settled":
        await spending.end(call, settled=70)
    else:
        await driver.rescue(spending.job.id, spending.attempt)
    amount = 70 if how == "settled" else 900
    books = await as_held(driver, [spending.job])
    assert books.records == (await from_rows(driver, [spending.job])).records
    meters = {window: meter["settled"] for (scope, window), meter in books.meters.items() if scope == "user:u1"}
    assert meters == {"total": amount, then: amount, then[:7]: amount}
    assert {key[0] for key in books.usage} == {then}
    assert await store.link.command("SMEMBERS", keys.charged(TENANT, then)) in (
        {spending.job.id.encode()},
        [spending.job.id.encode()],
    )


@pytest.mark.parametrize("period", ["day", "month"])
async def test_in_redis_a_limit_does_not_count_what_other_windows_have(store: JobStore, period: Any) -> None:
    driver = Driver(store)
    await limit(driver, "user:u1", 1000, period=period)
    spending = await Spender.start(store, user="u1")
    call = await spending.begin(reserved=1000)
    assert (await spending.refused(reserved=1)).left == 0
    await reserved_on(store, spending, call, day(40))
    await spending.begin(reserved=1000)
    await spending.end(call, settled=1000)
    assert [line.type for line in await store.lines(spending.job.id)].count("budget.reached") == 2
    assert (await spending.refused(reserved=1)).left == 0


async def test_in_redis_meters_are_kept_as_long_as_they_can_be_asked_for(store: JobStore) -> None:
    spending = await Spender.start(store, user="u1", session_id="s1")
    await spending.spend()
    now, day_seconds = milliseconds(), 86_400

    async def kept(key: str) -> int:
        seconds = int(await store.link.command("TTL", key))
        return -1 if seconds < 0 else round(seconds / day_seconds)

    today = datetime.fromtimestamp(now / 1000, UTC).date().isoformat()
    windows = ("total", today[:7], today)
    assert [await kept(keys.meter(TENANT, "tenant", window)) for window in windows] == [-1, 400, 40]
    assert [await kept(keys.meter(TENANT, "session:s1", window)) for window in windows] == [90, 90, 90]
    assert await kept(keys.usage(TENANT, today)) == 400
    assert await kept(keys.charged(TENANT, today)) == 100
