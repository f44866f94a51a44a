"""What a sweep does about jobs that nobody else would move on."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from agent_core.testing import ScriptedModel, says
from jobs import actions, keys, queue_keys
from jobs.lanes import lane_of
from jobs.limits import LimitBook
from jobs.link import milliseconds
from jobs.queue import Claim, Overdue
from jobs.records import RECORD_VERSION
from jobs.store import JobStore
from tests.worker.conftest import TENANT, Bench
from worker.executor import Attempted
from worker.reaper import MOST_LOST, TICKET_CHECK, Reaper


async def lose(bench: Bench) -> Claim:
    """Claims the next job and lets its lease end, as a worker does that dies."""
    claim = await bench.claim()
    await bench.end_lease(claim)
    return claim


async def test_a_job_whose_lease_has_ended_goes_back_to_the_front(bench: Bench):
    job_id = await bench.submit()
    await bench.submit()
    await lose(bench)
    assert len((await bench.reaper.sweep()).lost) == 1
    job = await bench.job(job_id)
    assert (job.status, job.lost, job.token) == ("queued", 1, "")
    assert (await bench.store.lines(job_id))[-1].data["worker"] == "w"
    assert (await bench.claim()).job_id == job_id
    assert bench.stats.take()["rescues_total"] == 1


async def test_a_living_lease_is_left_alone(bench: Bench):
    job_id = await bench.submit()
    claim = await bench.claim()
    assert (await bench.reaper.sweep()).lost == []
    assert await bench.reaper.rescue(job_id, bench.attempt(claim)) is False
    assert (await bench.job(job_id)).status == "running"


async def test_of_two_reapers_one_rescues(bench: Bench):
    job_id = await bench.submit()
    await lose(bench)
    await asyncio.gather(bench.reaper.sweep(), Reaper(bench.store, bench.stats, lease=0).sweep())
    assert (await bench.types(job_id)).count("job.rescued") == 1
    assert await bench.store.tickets.depths() == {"default.default": 1}
    assert bench.stats.take()["rescues_total"] == 1


async def test_after_too_many_losses_a_job_is_set_aside_and_a_retry_counts_anew(bench: Bench):
    job_id = await bench.submit()
    for _ in range(MOST_LOST):
        await lose(bench)
        await bench.reaper.sweep()
    job = await bench.job(job_id)
    assert job.error is not None
    assert (job.status, job.stop_reason, job.error["code"], job.lost) == ("failed", "error", "poison", MOST_LOST)
    await actions.retry(bench.store, TENANT, job_id)
    await lose(bench)
    await bench.reaper.sweep()
    job = await bench.job(job_id)
    assert (job.status, job.lost) == ("queued", 1)


async def test_a_cancel_outlives_the_worker_that_should_have_obeyed_it(bench: Bench):
    job_id = await bench.submit()
    claim = await bench.claim()
    await actions.cancel(bench.store, TENANT, job_id)
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    job = await bench.job(job_id)
    assert (job.status, job.stop_reason) == ("cancelled", "cancelled")


async def test_nothing_is_taken_before_a_lease_of_unbroken_contact(bench: Bench):
    job_id = await bench.submit()
    await lose(bench)
    careful = Reaper(bench.store, bench.stats, lease=3600)
    assert len((await careful.sweep()).lost) == 1
    assert (await bench.job(job_id)).status == "running"


async def test_an_answer_that_was_long_in_coming_is_the_end_of_a_silence(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    reaper = Reaper(bench.store, bench.stats, lease=6, clock=lambda: now)
    overdue = bench.store.tickets.overdue

    async def late(*args: Any, **kwargs: Any) -> Overdue:
        nonlocal now
        now += 60
        return await overdue(*args, **kwargs)

    job_id = await bench.submit()
    await lose(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.store.tickets, "overdue", late)
        await reaper.sweep()
    for _ in range(5):  # the live workers' time to beat
        now += 1
        await reaper.sweep()
        assert (await bench.job(job_id)).status == "running"
    now += 1
    await reaper.sweep()
    assert (await bench.job(job_id)).status == "queued"


async def test_a_scheduled_job_is_queued_when_it_is_due(bench: Bench):
    due = await bench.submit(run_at=milliseconds() - 1)
    later = await bench.submit(run_at=milliseconds() + 3_600_000)
    await bench.reaper.sweep()
    assert [(await bench.job(job_id)).status for job_id in (due, later)] == ["queued", "scheduled"]
    assert (await bench.claim()).job_id == due


async def test_a_job_that_is_past_its_expiry_expires_unless_it_runs(bench: Bench):
    running = await bench.submit(expires_at=milliseconds() - 1)
    await bench.claim()
    waiting = await bench.submit(expires_at=milliseconds() - 1)
    await bench.reaper.sweep()
    assert (await bench.job(running)).status == "running"
    job = await bench.job(waiting)
    assert job.error is not None
    assert (job.status, job.stop_reason, job.error["code"]) == ("expired", "expired", "expired")


async def test_a_queued_job_without_a_ticket_gets_one_and_one_with_a_ticket_no_second(bench: Bench, store: JobStore):
    lost, kept, aside = [await bench.submit() for _ in range(3)]
    long_ago = milliseconds() - 60_000
    for job_id in (lost, kept, aside):
        await store.link.command("ZADD", keys.QUEUED, long_ago, job_id)
    lane = lane_of("default.default", TENANT)
    queue, side = queue_keys.queue(lane), queue_keys.queue(f"{lane}@x@{bench.agent.version}")
    await store.link.command("LREM", queue, 0, lost)
    await store.link.command("LREM", queue, 0, aside)
    await store.link.command("RPUSH", side, aside)
    for _ in range(TICKET_CHECK):
        await bench.reaper.sweep()
    assert await store.link.command("LRANGE", queue, 0, -1) == [kept.encode(), lost.encode()]
    assert await store.link.command("LRANGE", side, 0, -1) == [aside.encode()]


@pytest.mark.parametrize("rubbish", ["no hash", "no version"])
async def test_a_record_that_cannot_be_read_does_not_stop_the_sweep(bench: Bench, rubbish: str):
    broken = await bench.submit(run_at=milliseconds() - 2)
    sound = await bench.submit(run_at=milliseconds() - 1)
    if rubbish == "no hash":
        await bench.store.link.command("SET", keys.job(broken), "rubbish")
    else:
        await bench.store.link.command("HDEL", keys.job(broken), "v")
    assert (await bench.reaper.sweep()).due == [broken, sound]
    assert (await bench.job(sound)).status == "queued"
    assert await dead_letters(bench) == [broken]
    assert (await bench.reaper.sweep()).due == []


async def test_a_running_job_whose_record_is_damaged_is_set_aside_once_its_lease_has_ended(bench: Bench):
    job_id = await bench.submit()
    claim = await lose(bench)
    await bench.store.link.command("HSET", keys.job(job_id), "spec", "{")
    assert [lost[0] for lost in (await bench.reaper.sweep()).lost] == [job_id]
    assert await dead_letters(bench) == [job_id]
    assert (await bench.reaper.sweep()).lost == []
    assert await bench.store.link.command("ZCARD", queue_keys.wip(claim.queue)) == 0


async def test_a_record_of_a_newer_version_is_left_to_a_newer_worker(bench: Bench):
    newer = await bench.submit(run_at=milliseconds() - 1)
    await bench.store.link.command("HSET", keys.job(newer), "v", RECORD_VERSION + 1)
    for _ in range(2):
        assert (await bench.reaper.sweep()).due == [newer]
    assert await dead_letters(bench) == []


@pytest.mark.parametrize("before", ["it has its ticket", "it waits for its session"])
async def test_the_session_of_a_job_that_was_set_aside_goes_on(bench: Bench, before: str):
    link = bench.store.link
    first = await bench.submit(session_id="s") if before == "it waits for its session" else None
    broken, following = [await bench.submit(session_id="s") for _ in range(2)]
    await link.command("HSET", keys.job(broken), "spec", "{")
    if first is not None:
        assert (await bench.run([says("done")])).status == "completed"
    else:
        await bench.executor(ScriptedModel([])).execute(Attempted(await bench.claim()))
    long_ago = milliseconds() - 60_000
    for job_id in (broken, following):
        await link.command("ZADD", keys.QUEUED, "XX", long_ago, job_id)
    for _ in range(2 * TICKET_CHECK):  # the first may look at the follower before it looks at the broken one
        await bench.reaper.sweep()
    assert await dead_letters(bench) == [broken]
    assert (await bench.claim()).job_id == following


async def dead_letters(bench: Bench) -> list[str]:
    return [job_id.decode() for job_id in await bench.store.link.command("ZRANGE", keys.DEAD_LETTERS, 0, -1)]


async def test_a_limit_that_was_lifted_lets_its_jobs_go(bench: Bench):
    limits = LimitBook(bench.store.link)
    await limits.put(TENANT, "tenant", {"running": 1})
    await bench.submit()
    await bench.claim()
    second = await bench.submit()
    versions = [f"x@{bench.agent.version}"]
    claim = partial(bench.store.tickets.claim, ["default.default"], versions, most=5, lease=60, worker="w")
    assert await claim() == []
    await limits.put(TENANT, "tenant", {"running": None})
    assert await claim() == []
    await bench.reaper.sweep()
    (claimed,) = await claim()
    assert claimed.job_id == second
