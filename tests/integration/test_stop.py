"""Stopping a worker that has work: it hands its jobs back and goes, and another goes on with them."""

from __future__ import annotations

import asyncio
import signal

import pytest
from rq.command import send_shutdown_command

from jobs import fleet
from jobs.link import connect
from tests.integration.harness import Platform, calls, eventually, says

GRACE = 1
"""Seconds; what `harness.SETTINGS` gives to running jobs."""


async def test_a_worker_that_drains_hands_its_jobs_back_and_another_finishes_them(platform: Platform):
    first = await platform.start_worker()
    turns = (
        calls("note", folder=platform.folder, text="once"),
        calls("slow_read", folder=platform.folder, hold="go"),
        says("done"),
    )
    ids = [await platform.submit(*turns) for _ in range(10)]
    await platform.traced("slow_read", 10)
    first.signal(signal.SIGTERM)
    assert await first.exited(within=GRACE + 2) == 0
    waiting = [await platform.job(job_id) for job_id in ids]
    assert {(job.status, job.token, job.lost) for job in waiting} == {("queued", "", 0)}
    assert await platform.store.tickets.depths() == {"default.default": 10}
    assert await fleet.workers(platform.link) == []
    platform.release("go")
    await platform.start_worker()
    jobs = await platform.all_become(ids, "completed")
    assert {job.attempts for job in jobs} == {2}
    assert len(platform.trace("note")) == 10
    assert len(set(platform.trace("note"))) == 10
    assert (await platform.simulator.stats())["calls"] == 30


async def test_a_draining_worker_claims_nothing_and_lets_what_ends_in_time_end(platform: Platform):
    worker = await platform.start_worker(drain_seconds=30)
    running = await platform.submit(calls("slow_read", folder=platform.folder, hold="go"), says("done"))
    await platform.traced("slow_read")
    worker.signal(signal.SIGTERM)

    async def draining() -> bool:
        return any(report.draining for report in await fleet.workers(platform.link))

    await eventually(draining, "the worker's report that it drains")
    late = await platform.submit(says("late"))
    platform.release("go")
    assert (await platform.becomes(running, "completed")).attempts == 1
    assert await worker.exited(within=5) == 0
    assert (await platform.job(late)).status == "queued"


async def test_a_model_call_that_a_drain_cuts_is_on_the_bill_and_made_again(platform: Platform):
    first = await platform.start_worker(drain_seconds=0)
    job_id = await platform.submit({"text": "word " * 100, "chunks": 20, "chunk_delay": 0.05})
    await eventually(platform.simulator.calls, "the model's call")
    first.signal(signal.SIGTERM)
    assert await first.exited(within=2) == 0
    (row,) = await platform.ledger(job_id)
    assert row["reason"] == "cut_stream"
    await platform.start_worker()
    job = await platform.becomes(job_id, "completed")
    assert [row["reason"] for row in await platform.ledger(job_id)] == ["cut_stream", "settled"]
    assert job.counters["reserved"] == 0


@pytest.mark.parametrize("how", ["second signal", "command of RQ"])
async def test_other_ways_to_stop(platform: Platform, how: str):
    worker = await platform.start_worker(drain_seconds=0 if how == "command of RQ" else 600)
    job_id = await platform.submit(calls("slow_read", folder=platform.folder, hold="never"))
    await platform.traced("slow_read")
    if how == "command of RQ":
        with connect(platform.redis.url) as redis:
            await asyncio.to_thread(send_shutdown_command, redis, worker.name)
    else:
        worker.signal(signal.SIGTERM)
        await eventually(lambda: worker.logged("draining"), "the drain")
        worker.signal(signal.SIGTERM)
    assert await worker.exited(within=3) == 0
    assert (await platform.job(job_id)).status == "queued"


async def test_tools_that_block_their_threads_do_not_hold_up_the_exit(platform: Platform):
    worker = await platform.start_worker()
    turn = {"tools": [{"name": "block", "input": {"folder": platform.folder, "hold": "never"}} for _ in range(8)]}
    ids = [await platform.submit(turn) for _ in range(10)]
    await platform.traced("block", 6)
    worker.signal(signal.SIGTERM)
    assert await worker.exited(within=GRACE + 2) == 0
    assert {(await platform.job(job_id)).status for job_id in ids} == {"queued"}


@pytest.mark.chaos
async def test_a_worker_stops_while_redis_is_away_and_its_jobs_are_rescued(platform: Platform):
    worker = await platform.start_worker()
    job_id = await platform.submit(calls("slow_read", folder=platform.folder, hold="go"), says("done"))
    await platform.traced("slow_read")
    platform.redis.kill()
    worker.signal(signal.SIGTERM)
    assert await worker.exited(within=20) == 3
    platform.redis.start("--appendonly", "yes", "--appendfsync", "always")
    platform.release("go")
    await platform.start_worker()
    job = await platform.becomes(job_id, "completed")
    assert (job.attempts, (await platform.types(job_id)).count("job.rescued")) == (2, 1)
