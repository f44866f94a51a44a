"""Redis goes away while jobs run: workers hold what they have to write, and go on when it is back."""

from __future__ import annotations

import asyncio
import signal

import pytest

from jobs import keys
from tests.integration.harness import Platform, calls, eventually, says

LEASE = 2
"""Seconds; what `harness.SETTINGS` gives."""
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.mark.parametrize("outage", [0.5, pytest.param(2.5 * LEASE, marks=pytest.mark.chaos)])
async def test_redis_is_killed_and_started_again(platform: Platform, outage: float):
    workers = [await platform.start_worker(concurrency=25) for _ in range(2)]
    turns = (
        calls("note", folder=platform.folder, text="n"),
        calls("slow_read", folder=platform.folder, hold="go"),
        says("done"),
    )
    ids = [await platform.submit(*turns) for _ in range(25)]
    await platform.traced("slow_read", 25)
    platform.redis.kill()
    platform.release("go")
    await asyncio.sleep(outage)
    platform.redis.start(*DURABLE)
    jobs = await platform.all_become(ids, "completed")
    assert {(job.attempts, job.lost) for job in jobs} == {(1, 0)}
    assert len(platform.trace("note")) == len(set(platform.trace("note"))) == 25
    assert (await platform.simulator.stats())["calls"] == 75
    assert all(worker.alive for worker in workers)

    await eventually(lambda: listening(platform, workers[0].name), "the worker listens for commands again")
    workers[0].signal(signal.SIGTERM)
    workers[1].signal(signal.SIGTERM)
    assert [await worker.exited(within=5) for worker in workers] == [0, 0]


@pytest.mark.chaos
async def test_redis_freezes_for_longer_than_a_lease(platform: Platform):
    worker = await platform.start_worker()
    job_id = await platform.submit(calls("slow_read", folder=platform.folder, hold="go"), says("done"))
    await platform.traced("slow_read")
    platform.redis.signal(signal.SIGSTOP)
    platform.release("go")
    await asyncio.sleep(4 * LEASE)
    platform.redis.signal(signal.SIGCONT)
    job = await platform.becomes(job_id, "completed")
    assert (job.attempts, job.lost, len(platform.trace("slow_read"))) == (1, 0, 1)
    assert worker.alive


async def listening(platform: Platform, worker: str) -> bool:
    _, count = await platform.link.command("PUBSUB", "NUMSUB", f"rq:pubsub:{worker}")
    return int(count) == 1


async def test_a_write_that_nobody_answered_is_not_made_twice(platform: Platform):
    """Redis dies between a write and its answer, again and again: the journal has each entry once."""
    await platform.start_worker()
    turns = [calls("echo", text=str(n)) for n in range(8)]
    ids = [await platform.submit(*turns, says("done")) for _ in range(10)]
    for _ in range(3):
        await grown(platform, ids[0])
        platform.redis.kill()
        platform.redis.start(*DURABLE)
    for job in await platform.all_become(ids, "completed"):
        lines = await platform.lines(job.id)
        closed = [line.data["call_id"] for line in lines if line.type in ("model.completed", "tool.completed")]
        assert len(closed) == len(set(closed)) == 17
        assert (job.counters["tool_calls"], job.counters["reserved"], job.attempts) == (8, 0, 1)


async def grown(platform: Platform, job_id: str) -> None:
    """Returns when the job's journal is longer than it was."""

    async def length() -> int:
        return int(await platform.link.command("XLEN", keys.journal(job_id)))

    before = await length()

    async def longer() -> bool:
        return await length() > before

    await eventually(longer, "progress")
