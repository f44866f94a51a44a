"""Which ticket is taken, when, and by whom."""

from __future__ import annotations

import pytest

from jobs.lanes import lane_of
from jobs.queue import PassOver, queue_names
from tests.jobs.driver import ENDED_LEASE, TENANT, VERSION, Driver, attempt_of, lose_tickets, suspend

SIDE = "default.default@clerk@2"


async def test_the_oldest_comes_first(driver: Driver) -> None:
    jobs = [await driver.submit() for _ in range(3)]
    assert [await driver.store.tickets.place(job) for job in jobs] == [0, 1, 2]
    assert [c.job_id for c in await driver.claim(10)] == [job.id for job in jobs]


async def test_high_comes_before_default_before_low(driver: Driver) -> None:
    low, default, high = [await driver.submit(priority=p) for p in ("low", "default", "high")]
    assert [c.job_id for c in await driver.claim(10)] == [high.id, default.id, low.id]


async def test_a_priority_counts_over_all_pools(driver: Driver) -> None:
    queues = queue_names(["gpu", "default"])
    assert queues == ["gpu.high", "default.high", "gpu.default", "default.default", "gpu.low", "default.low"]
    low_gpu = await driver.submit(pool="gpu", priority="low")
    default = await driver.submit()
    assert [c.job_id for c in await driver.claim(10, queues=queues)] == [default.id, low_gpu.id]


async def test_a_pool_is_served_by_its_own_workers_only(driver: Driver) -> None:
    job = await driver.submit(pool="gpu")
    assert await driver.claim(10) == []
    (claim,) = await driver.claim(10, queues=queue_names(["gpu"]))
    assert (claim.job_id, claim.queue) == (job.id, "gpu.default~acme")


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_no_more_is_taken_than_asked_for(driver: Driver, most: int) -> None:
    for priority in ("high", "default", "low", "default"):
        await driver.submit(priority=priority)
    assert len(await driver.claim(most)) == min(most, 4)
    assert await driver.tickets() == 4 - min(most, 4)
    assert await driver.store.tickets.running() == min(most, 4)


async def test_a_claim_is_a_running_attempt_at_once(driver: Driver) -> None:
    job = await driver.submit()
    claim = await driver.claim_one(worker="w7")
    running = await driver.get(job)
    assert claim.job == running
    assert claim.member == f"{job.id}:{claim.token}"
    assert (running.status, running.worker, running.queue) == ("running", "w7", "default.default~acme")
    assert (running.attempts, running.since_ms) == (1, running.started_ms)
    last = (await driver.store.lines(job.id))[-1]
    assert (last.type, last.attempt, last.data) == ("job.started", 1, {"worker": "w7"})


async def test_another_agent_version_is_left_to_a_worker_that_has_it(driver: Driver) -> None:
    theirs = await driver.submit(agent_version="2")
    ours = await driver.submit()
    assert [c.job_id for c in await driver.claim(10)] == [ours.id]
    assert await driver.store.tickets.depths() == {"default.default": 0, SIDE: 1}
    assert await driver.status(theirs) == "queued"
    assert await driver.claim(10) == []
    (claim,) = await driver.claim(10, queues=[*queue_names(["default"]), SIDE], versions=[VERSION, "clerk@2"])
    assert (claim.job_id, claim.queue) == (theirs.id, lane_of(SIDE, TENANT))
    await driver.end(theirs, attempt_of(claim))
    assert await driver.status(theirs) == "completed"


async def test_a_side_queue_is_safe_from_a_worker_without_the_version(driver: Driver) -> None:
    job = await driver.submit(agent_version="2")
    await driver.claim(10)
    assert await driver.claim(10, queues=[SIDE]) == []
    assert await driver.store.tickets.depths() == {"default.default": 0, SIDE: 1}
    assert await driver.status(job) == "queued"


async def test_a_ticket_in_a_side_queue_is_a_ticket(driver: Driver) -> None:
    job = await driver.submit(agent_version="2")
    await driver.claim(10)
    assert not await driver.store.release(job.id)
    assert await driver.tickets() == 1


async def test_an_agent_may_have_any_name(driver: Driver) -> None:
    job = await driver.submit(agent="Büro %1 {x}", agent_version="1", session_id="a%1{tenant}:b")
    (claim,) = await driver.claim(versions=["Büro %1 {x}@1"])
    assert claim.job_id == job.id


async def test_a_lost_ticket_is_missed_and_pushed_again_once(driver: Driver) -> None:
    kept, lost = await driver.submit(), await driver.submit(priority="low")
    await lose_tickets(driver, "default.low")
    found = await driver.store.tickets.overdue(unticketed_ms=-1000)
    assert set(found.unticketed) == {kept.id, lost.id}
    assert [await driver.store.release(job_id) for job_id in (kept.id, lost.id, lost.id)] == [False, True, False]
    assert {c.job_id for c in await driver.claim(10)} == {kept.id, lost.id}


async def test_a_long_queue_can_be_looked_at_in_parts(driver: Driver) -> None:
    jobs = {(await driver.submit()).id for _ in range(5)}
    overdue = driver.store.tickets.overdue
    assert (await overdue()).unticketed == []
    skips = [PassOver(unticketed=skipped) for skipped in (0, 2, 4, 6)]
    parts = [(await overdue(most=2, unticketed_ms=-1000, skip=skip)).unticketed for skip in skips]
    assert [len(part) for part in parts] == [2, 2, 1, 0]
    assert {job_id for part in parts for job_id in part} == jobs


async def test_a_job_that_is_set_aside_is_in_nobodys_way(driver: Driver) -> None:
    aside, attempt = await driver.start(session_id="s", expires_at=1, lease=ENDED_LEASE)
    following, last = [await driver.submit(session_id="s") for _ in range(2)]
    assert not await driver.store.release(following.id)
    await driver.store.tickets.set_aside(aside.id, attempt.token, attempt.queue)
    found = await driver.store.tickets.overdue()
    assert (found.lost, found.expired, await driver.store.tickets.running()) == ([], [], 0)
    assert not await driver.store.release(last.id)
    assert await driver.store.release(following.id)
    assert (await driver.claim_one()).job_id == following.id


async def test_a_queued_job_that_is_set_aside_is_swept_no_more(driver: Driver) -> None:
    jobs = [await driver.submit(), await driver.submit(run_at=1)]
    for job in jobs:
        await driver.store.tickets.set_aside(job.id)
    found = await driver.store.tickets.overdue(unticketed_ms=-1000)
    assert (found.unticketed, found.due) == ([], [])


async def test_only_queued_jobs_are_released(driver: Driver) -> None:
    for status in ("scheduled", "running", "paused", "completed"):
        job = await driver.into(status)
        assert not await driver.store.release(job.id)
    assert not await driver.store.release("job_none")
    assert await driver.tickets() == 0


async def test_nothing_is_claimed_while_the_queues_are_suspended(driver: Driver) -> None:
    job = await driver.submit()
    await suspend(driver, True)
    assert await driver.claim(10) == []
    assert await driver.store.tickets.place(job) == 0
    await suspend(driver, False)
    assert (await driver.claim_one()).job_id == job.id
