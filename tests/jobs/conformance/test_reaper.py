"""The worker's reaper, on either store."""

from __future__ import annotations

import asyncio

import pytest

from jobs.link import milliseconds
from jobs.queue import MOST_OVERDUE
from jobs.stats import Stats
from tests.jobs.driver import ENDED_LEASE, HOUR_MS, Driver, attempt_of, lose_tickets
from worker.reaper import MOST_LOST, TICKET_CHECK, Reaper


def reaper(driver: Driver) -> Reaper:
    """One that has been in contact for long enough to take a job from anyone."""
    return Reaper(driver.store, Stats(), lease=0)


async def test_a_sweep_deals_with_all_that_is_overdue(driver: Driver) -> None:
    lost, _ = await driver.start(lease=ENDED_LEASE)
    due = await driver.submit(run_at=1)
    expired = await driver.submit(expires_at=1, priority="low")
    later = await driver.submit(run_at=milliseconds() + HOUR_MS)
    await reaper(driver).sweep()
    statuses = [await driver.status(job) for job in (lost, due, expired, later)]
    assert statuses == ["queued", "queued", "expired", "scheduled"]
    assert {claim.job_id for claim in await driver.claim(10)} == {lost.id, due.id}


async def test_ten_reapers_rescue_a_job_once(driver: Driver) -> None:
    job, _ = await driver.start(lease=ENDED_LEASE)
    await asyncio.gather(*(reaper(driver).sweep() for _ in range(10)))
    assert (await driver.types(job)).count("job.rescued") == 1
    assert await driver.tickets() == 1
    assert (await driver.get(job)).lost == 1


async def test_a_job_that_takes_worker_after_worker_down_is_set_aside(driver: Driver) -> None:
    job = await driver.submit()
    for _ in range(MOST_LOST):
        await driver.claim_one(lease=ENDED_LEASE)
        await reaper(driver).sweep()
    buried = await driver.get(job)
    assert (buried.status, buried.attempts, buried.lost) == ("failed", MOST_LOST, MOST_LOST)
    assert buried.error is not None
    assert buried.error["code"] == "poison"


async def test_a_completed_turn_between_two_losses_makes_the_job_count_anew(driver: Driver) -> None:
    job = await driver.submit()
    for _ in range(MOST_LOST + 1):
        attempt = attempt_of(await driver.claim_one(lease=ENDED_LEASE))
        await driver.store.record(job.id, attempt.token, 1, {}, [("model.completed", {"step": 1})])
        assert (await driver.get(job)).lost == 0
        await reaper(driver).sweep()
        assert (await driver.get(job)).lost == 1
    assert await driver.status(job) == "queued"


async def test_other_entries_than_a_turn_are_no_progress(driver: Driver) -> None:
    job, attempt = await driver.start(lease=ENDED_LEASE)
    await reaper(driver).sweep()
    attempt = attempt_of(await driver.claim_one())
    await driver.store.record(job.id, attempt.token, 1, {}, [("model.failed", {"step": 1}), ("tool.requested", {})])
    assert (await driver.get(job)).lost == 1


async def test_jobs_that_run_past_their_expiry_do_not_hide_those_that_wait(driver: Driver) -> None:
    for _ in range(MOST_OVERDUE):
        await driver.submit(expires_at=1)
    await driver.claim(MOST_OVERDUE)
    waiting = await driver.submit(expires_at=2)
    sweeper = reaper(driver)
    for _ in range(2):
        await sweeper.sweep()
    assert await driver.status(waiting) == "expired"
    assert len((await sweeper.sweep()).expired) == MOST_OVERDUE, "and begins anew"


async def test_a_job_whose_cancel_nobody_heard_is_cancelled_instead_of_rescued(driver: Driver) -> None:
    job, _ = await driver.start(lease=ENDED_LEASE)
    await driver.store.flag(job, "cancel")
    await reaper(driver).sweep()
    assert await driver.status(job) == "cancelled"


async def test_a_deferral_ends_with_a_ticket(driver: Driver) -> None:
    job, attempt = await driver.start()
    await driver.end(job, attempt, "hand_back", due_ms=1)
    await reaper(driver).sweep()
    assert (await driver.claim_one()).job_id == job.id


async def test_a_lost_ticket_is_found_behind_a_long_queue_that_nobody_serves(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(MOST_OVERDUE + 1):
        await driver.submit(pool="nobody")
    job = await driver.submit()
    await lose_tickets(driver, "default.default")
    plain = driver.store.tickets.overdue
    monkeypatch.setattr(driver.store.tickets, "overdue", lambda **how: plain(unticketed_ms=-1000, **how))
    sweeper = reaper(driver)
    for _ in range(2 * TICKET_CHECK):
        await sweeper.sweep()
    assert [claim.job_id for claim in await driver.claim(10)] == [job.id]


async def test_an_attempt_that_comes_back_after_its_rescue_is_refused(driver: Driver) -> None:
    job, attempt = await driver.start(lease=ENDED_LEASE)
    assert await reaper(driver).rescue(job.id, attempt)
    fresh = attempt_of(await driver.claim_one())
    results = await asyncio.gather(driver.end(job, attempt), driver.end(job, fresh), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["StaleAttemptError", "Moved"]
