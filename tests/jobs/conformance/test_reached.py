"""What is written down when a share of a limit is reached."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_core.types import Budget, Json
from jobs.link import RedisLink, connect
from jobs.records import Job
from jobs.store import JobStore
from jobs.testing import MemoryStore
from tests.jobs.books import limit
from tests.jobs.driver import Driver
from tests.jobs.spender import USAGE, Spender

UNLIMITED = Budget(usd=None)


async def reached(driver: Driver, job: Job) -> list[Json]:
    return [line.data for line in await driver.store.lines(job.id) if line.type == "budget.reached"]


async def spender(driver: Driver, budget: Budget = UNLIMITED) -> Spender:
    return await Spender.start(driver.store, budget=budget, user="u1", session_id="s1")


async def pay(spending: Spender, settled: int) -> None:
    """A call that costs what it reserved."""
    await spending.end(await spending.begin(reserved=settled), settled=settled, reserved=settled)


async def test_eighty_and_a_hundred_per_cent_are_told_once(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "user:u1", 1000, period="day")
    for settled, percents in ((799, []), (1, [80]), (199, [80]), (1, [80, 100]), (0, [80, 100])):
        await pay(spending, settled)
        assert [about["percent"] for about in await reached(driver, spending.job)] == percents
    about = {"scope": "user:u1", "period": "day", "at_limit": "stop", "limit": 1000}
    assert await reached(driver, spending.job) == [
        {**about, "percent": 80, "spent": 800},
        {**about, "percent": 100, "spent": 1000},
    ]


async def test_tokens_are_told_as_tokens(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "tenant", None, 500, at_limit="pause")
    usage = {"input_tokens": 300, "output_tokens": 100}
    await spending.end(await spending.begin(tokens=500), settled=70, usage=usage)
    about = {"scope": "tenant", "period": "total", "at_limit": "pause", "limit_tokens": 500}
    assert await reached(driver, spending.job) == [{**about, "percent": 80, "spent_tokens": 400}]


async def test_one_call_may_reach_both_of_every_limit(driver: Driver) -> None:
    spending = await spender(driver, Budget(usd="0.0001", tokens=2000))
    for scope in ("tenant", "session:*", "agent:clerk", "job:*"):
        await limit(driver, scope, 100)
    await limit(driver, "user:*", None, 427, period="month", at_limit="warn")
    await pay(spending, 100)
    found = [(about["scope"], about["period"], about["percent"]) for about in await reached(driver, spending.job)]
    scopes = [("job", "total"), ("job:*", "total"), ("tenant", "total"), ("agent:clerk", "total")]
    scopes += [("user:u1", "month"), ("session:s1", "total")]
    assert found == [(*scope, percent) for scope in scopes for percent in (80, 100)]


async def test_it_is_told_right_after_the_call_that_reached_it(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "tenant", 70)
    await pay(spending, 70)
    types = await driver.types(spending.job)
    assert types[-3:] == ["model.completed", "budget.reached", "budget.reached"]
    assert {line.attempt for line in (await driver.store.lines(spending.job.id))[-3:]} == {1}


async def test_a_reservation_reaches_nothing(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "tenant", 900)
    await spending.fail(await spending.begin(reserved=900), 0, "released")
    assert await reached(driver, spending.job) == []


async def test_a_limit_that_warns_is_told_as_well_and_only_once(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "tenant", 100, at_limit="warn")
    for _ in range(4):
        await pay(spending, 70)
    found = await reached(driver, spending.job)
    assert [(about["percent"], about["spent"], about["at_limit"]) for about in found] == [
        (80, 140, "warn"),
        (100, 140, "warn"),
    ]


async def test_a_raised_limit_is_reached_anew(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "tenant", 70)
    await pay(spending, 70)
    await limit(driver, "tenant", 1000)
    await pay(spending, 729)
    await pay(spending, 1)
    assert [(about["percent"], about["limit"]) for about in await reached(driver, spending.job)] == [
        (80, 70),
        (100, 70),
        (80, 1000),
    ]


async def test_a_limit_set_below_what_is_spent_has_been_reached_before(driver: Driver) -> None:
    spending = await spender(driver)
    await pay(spending, 90)
    await limit(driver, "tenant", 100, at_limit="warn")
    await pay(spending, 5)
    assert await reached(driver, spending.job) == []
    await pay(spending, 5)
    assert [about["percent"] for about in await reached(driver, spending.job)] == [100]


async def test_it_is_told_in_the_journal_of_the_job_that_reached_it(driver: Driver) -> None:
    first, second = await spender(driver), await Spender.start(driver.store, user="u1")
    await limit(driver, "user:u1", 100)
    await pay(first, 79)
    await pay(second, 1)
    assert await reached(driver, first.job) == []
    assert len(await reached(driver, second.job)) == 1


@pytest.fixture(params=["memory", "redis"])
def run(request: pytest.FixtureRequest, redis_url: str) -> Any:
    """Runs a coroutine function with a driver on an empty store; once for each example."""

    def run(work: Any) -> None:
        async def on_a_store() -> None:
            if request.param == "memory":
                await work(Driver(MemoryStore()))
                return
            with redis.Redis.from_url(redis_url) as client:
                client.flushall()
            link = RedisLink(connect(redis_url))
            await work(Driver(JobStore(link)))
            await link.aclose()

        asyncio.run(on_a_store())

    return run


AMOUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=8)


@pytest.mark.parametrize("unit", ["usd", "tokens"])
def test_each_share_is_told_when_it_is_passed_and_never_again(run: Any, unit: str) -> None:
    @settings(max_examples=25, deadline=None)
    @given(AMOUNTS, st.integers(1, 120))
    def check(amounts: list[int], most: int) -> None:
        async def work(driver: Driver) -> None:
            spending = await spender(driver)
            micros, tokens = (most, None) if unit == "usd" else (None, most)
            await limit(driver, "tenant", micros, tokens, at_limit="warn")
            for amount in amounts:
                usage = {**dict.fromkeys(USAGE, 0), "input_tokens": amount}
                await spending.end(await spending.begin(reserved=amount), settled=amount, usage=usage)
            sums = [0, *itertools.accumulate(amounts)]
            expected = [
                (percent, after)
                for before, after in itertools.pairwise(sums)
                for percent in (80, 100)
                if before < most * percent / 100 <= after
            ]
            spent = "spent" if unit == "usd" else "spent_tokens"
            assert [(x["percent"], x[spent]) for x in await reached(driver, spending.job)] == expected

        run(work)

    check()
