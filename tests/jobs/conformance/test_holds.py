"""Jobs that a budget holds: paused until it is raised or its window is over."""

from __future__ import annotations

import pytest

from agent_core.types import Budget
from jobs import actions, keys
from jobs.link import milliseconds
from jobs.moves import Hold
from jobs.stats import Stats
from jobs.store import JobStore
from jobs.testing import MemoryStore
from tests.jobs.books import check, limit
from tests.jobs.driver import HOUR_MS, TENANT, Driver, attempt_of
from tests.jobs.spender import Spender
from worker.reaper import Reaper


async def held(driver: Driver) -> dict[str, float]:
    """When the window of each held job's budget ends, in ms."""
    if isinstance(driver.store, MemoryStore):
        found = driver.store.shelf.held
        return {job_id: float("inf") if until is None else until for job_id, until in found.items()}
    assert isinstance(driver.store, JobStore)
    raw = await driver.store.link.command("ZRANGE", keys.HELD, 0, -1, "WITHSCORES")
    pairs = raw if raw and isinstance(raw[0], list) else list(zip(raw[::2], raw[1::2], strict=True))
    return {job_id.decode(): float(score) for job_id, score in pairs}


async def held_by(driver: Driver, job_id: str) -> str | None:
    if isinstance(driver.store, MemoryStore):
        return driver.store.shelf.records[job_id].get("held_by")
    assert isinstance(driver.store, JobStore)
    raw = await driver.store.link.command("HGET", keys.job(job_id), "held_by")
    return raw.decode() if raw else None


async def put_to_rest(driver: Driver, spending: Spender, budget: str, until_ms: int | None) -> None:
    hold = Hold(budget, until_ms)
    await driver.end(spending.job, spending.attempt, "hold", stop_reason="budget_exceeded", hold=hold)


async def hold(driver: Driver, until_ms: int | None = None) -> Spender:
    """A job that the day's budget of its user holds."""
    spending = await Spender.start(driver.store, user="u1")
    await put_to_rest(driver, spending, "user:u1|day", until_ms)
    return spending


async def test_a_job_is_held_for_what_its_refusal_says(driver: Driver) -> None:
    await limit(driver, "user:*", 1, period="day", at_limit="pause")
    spending = await Spender.start(driver.store, user="u1")
    refusal = await spending.refused()
    assert refusal.until_ms is not None
    await put_to_rest(driver, spending, refusal.held_by, refusal.until_ms)
    job = await driver.get(spending.job)
    assert (job.status, job.stop_reason, job.token) == ("paused", "budget_exceeded", "")
    assert await held(driver) == {job.id: refusal.until_ms}
    assert await held_by(driver, job.id) == "user:*|day"
    assert (await driver.types(job))[-1] == "job.paused"
    assert await driver.claim(5) == []


async def test_a_budget_without_an_end_holds_for_ever(driver: Driver) -> None:
    spending = await hold(driver)
    assert await held(driver) == {spending.job.id: float("inf")}
    await driver.sweep()
    await Reaper(driver.store, Stats(), lease=0).sweep()
    assert await driver.status(spending.job) == "paused"


async def test_nothing_of_a_hold_is_left_when_the_job_goes_on(driver: Driver) -> None:
    spending = await hold(driver, milliseconds() + HOUR_MS)
    await actions.resume(driver.store, TENANT, spending.job.id)
    assert (await held(driver), await held_by(driver, spending.job.id)) == ({}, None)
    claim = await driver.claim_one()
    assert claim.job is not None
    assert (claim.job_id, claim.job.stop_reason) == (spending.job.id, None)


@pytest.mark.parametrize("action", ["cancel", "expire"])
async def test_nothing_of_a_hold_is_left_when_the_job_ends(driver: Driver, action: str) -> None:
    spending = await hold(driver, 1)
    await driver.store.move(await driver.get(spending.job), action)
    assert (await held(driver), await held_by(driver, spending.job.id)) == ({}, None)
    assert (await driver.store.tickets.overdue()).due == []


async def test_a_hold_ends_with_its_window(driver: Driver) -> None:
    over, on = await hold(driver, 1), await hold(driver, milliseconds() + HOUR_MS)
    await Reaper(driver.store, Stats(), lease=0).sweep()
    assert await driver.status(on.job) == "paused"
    assert await driver.status(over.job) == "queued"
    assert list(await held(driver)) == [on.job.id]
    assert (await driver.claim_one()).job_id == over.job.id


async def test_a_job_that_is_held_again_is_held_anew(driver: Driver) -> None:
    spending = await hold(driver, 1)
    await actions.resume(driver.store, TENANT, spending.job.id)
    claim = await driver.claim_one()
    job = await driver.get(spending.job)
    again = Spender(driver.store, job, attempt_of(claim))
    await limit(driver, "tenant", 1, at_limit="pause")
    refusal = await again.refused()
    await put_to_rest(driver, again, refusal.held_by, refusal.until_ms)
    assert await held(driver) == {job.id: float("inf")}
    assert await held_by(driver, job.id) == "tenant|total"
    assert (await driver.store.tickets.overdue()).due == []


async def test_a_cancel_that_came_just_before_the_hold_is_made(driver: Driver) -> None:
    spending = await Spender.start(driver.store)
    await driver.store.flag(spending.job, "cancel")
    await driver.end(spending.job, spending.attempt, "hold", hold=Hold("tenant|total"))
    assert await driver.status(spending.job) == "cancelled"
    assert await held(driver) == {}


async def test_a_person_may_pause_without_a_budget_that_holds(driver: Driver) -> None:
    job = await driver.submit()
    await actions.pause(driver.store, TENANT, job.id)
    assert (await held(driver), await held_by(driver, job.id)) == ({}, None)


async def test_a_retry_may_raise_the_limit_that_stopped_the_job(driver: Driver) -> None:
    spending = await Spender.start(driver.store, budget=Budget(usd="0.001"))
    await spending.spend(900)
    assert (await spending.refused(reserved=101)).limit == 1000
    await spending.finish("fail")
    await actions.retry(driver.store, TENANT, spending.job.id, {"usd": "0.002", "tokens": 5000})
    claim = await driver.claim_one()
    again = Spender(driver.store, spending.job, attempt_of(claim))
    assert (await again.refused(reserved=1101)).limit == 2000
    assert (await again.refused(reserved=1, tokens=5000)).limit == 5000
    await again.begin(reserved=1100)
    await check(driver, spending.job)
