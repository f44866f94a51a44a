"""What a refused reservation says: which budget refused, how much room is left, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agent_core.types import AtLimit, Budget
from jobs.budgets import Period
from tests.jobs.books import limit
from tests.jobs.driver import Driver
from tests.jobs.spender import Spender

UNLIMITED = Budget(usd=None)


async def spender(driver: Driver, budget: Budget = UNLIMITED) -> Spender:
    return await Spender.start(driver.store, budget=budget, user="u1", session_id="s1")


async def test_the_room_is_the_least_of_all_limits_in_either_unit(driver: Driver) -> None:
    spending = await spender(driver, Budget(usd="0.003", tokens=9000))
    await limit(driver, "tenant", 2500, 8000)
    await limit(driver, "user:*", None, 7000, period="day")
    await limit(driver, "agent:clerk", 2200, None, period="month")
    await limit(driver, "session:s1", 1, 1, at_limit="warn")
    call = await spending.begin(reserved=900, tokens=2000)
    refusal = await spending.refused(reserved=2101, tokens=100)
    assert (refusal.scope, refusal.unit, refusal.limit, refusal.left) == ("job", "usd", 3000, 2100)
    assert (refusal.room_micros, refusal.room_tokens) == (1300, 5000)
    await spending.end(call, settled=70)
    refusal = await spending.refused(reserved=1, tokens=9000)
    assert (refusal.room_micros, refusal.room_tokens) == (2130, 7000 - 427)


async def test_a_unit_without_a_limit_has_no_end_of_room(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "tenant", 100)
    refusal = await spending.refused(reserved=101)
    assert (refusal.room_micros, refusal.room_tokens) == (100, None)
    await limit(driver, "tenant", None, 100)
    refusal = await spending.refused(tokens=101)
    assert (refusal.room_micros, refusal.room_tokens) == (None, 100)
    assert (refusal.unit, refusal.limit, refusal.left) == ("tokens", 100, 100)


@pytest.mark.parametrize("order", [("stop", "pause"), ("pause", "stop")])
async def test_a_limit_that_stops_is_told_before_one_that_pauses(
    driver: Driver, order: tuple[AtLimit, AtLimit]
) -> None:
    spending = await spender(driver)
    for scope, at_limit in zip(("tenant", "user:u1"), order, strict=True):
        await limit(driver, scope, 100, at_limit=at_limit)
    refusal = await spending.refused()
    assert (refusal.at_limit, refusal.scope) == ("stop", ("tenant", "user:u1")[order.index("stop")])


async def test_of_limits_alike_the_innermost_is_told(driver: Driver) -> None:
    spending = await spender(driver, Budget(usd="0.0001", tokens=100))
    await limit(driver, "tenant", 100)
    refusal = await spending.refused()
    assert (refusal.scope, refusal.unit, refusal.held_by) == ("job", "usd", "job|total")


async def test_a_limit_that_only_reservations_are_in_the_way_of_is_told_as_busy(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "tenant", 1000)
    call = await spending.begin(reserved=900)
    refusal = await spending.refused(reserved=1000)
    assert (refusal.busy, refusal.left) == (True, 100)
    assert not (await spending.refused(reserved=1001)).busy
    await spending.end(call, settled=1)
    assert not (await spending.refused(reserved=1000)).busy


@pytest.mark.parametrize("at_limit", ["stop", "pause"])
async def test_one_that_has_no_room_for_good_is_told_before_a_busy_one(driver: Driver, at_limit: AtLimit) -> None:
    spending = await spender(driver)
    await limit(driver, "tenant", 1000)
    await limit(driver, "user:u1", None, 5000, at_limit=at_limit)
    await spending.begin(reserved=900, tokens=100)
    refusal = await spending.refused(reserved=200, tokens=5001)
    assert (refusal.scope, refusal.at_limit, refusal.busy) == ("user:u1", at_limit, False)
    assert (refusal.room_micros, refusal.room_tokens) == (100, 4900)


def window_end(period: Period, now: datetime) -> int | None:
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
    while period == "month" and midnight.day != 1:
        midnight += timedelta(days=1)
    return None if period == "total" else int(midnight.timestamp()) * 1000


@pytest.mark.parametrize("period", ["total", "month", "day"])
async def test_a_refusal_says_when_its_window_ends(driver: Driver, period: Period) -> None:
    spending = await spender(driver)
    await limit(driver, "user:*", 1, period=period, at_limit="pause")
    before = datetime.now(UTC)
    refusal = await spending.refused()
    after = datetime.now(UTC)
    assert refusal.until_ms in {window_end(period, moment) for moment in (before, after)}
    assert (refusal.period, refusal.held_by) == (period, f"user:*|{period}")
    assert f" of this {period}" in refusal.detail or period == "total"
