"""Workers that die, freeze or block: their jobs are rescued, recorded steps are not repeated, zombies are refused."""

from __future__ import annotations

import signal
from collections import Counter

from agent_core.types import micros
from jobs import actions, keys
from tests.integration.harness import TENANT, Platform, calls, eventually, says

LEASE = 2
"""Seconds; what `harness.SETTINGS` gives."""


async def test_twenty_jobs_of_a_killed_worker_are_each_finished_once(platform: Platform):
    first = await platform.start_worker()
    turns = (
        calls("note", folder=platform.folder, text="step one"),
        calls("slow_read", folder=platform.folder, hold="go"),
        says("done"),
    )
    ids = [await platform.submit(*turns) for _ in range(20)]
    await platform.traced("slow_read", 20)
    second = await platform.start_worker()
    first.kill()
    platform.release("go")
    jobs = await platform.all_become(ids, "completed")
    assert {job.attempts for job in jobs} == {2}
    assert Counter(line.split()[0] for line in platform.trace("note")).most_common(1)[0][1] == 1
    assert len(platform.trace("note")) == 20
    for job_id in ids:
        types = await platform.types(job_id)
        assert types.count("job.completed") == types.count("job.rescued") == 1
        assert types.count("model.completed") == 3
    assert (await platform.simulator.stats())["calls"] == 60
    assert second.alive


async def test_what_a_killed_worker_left_unclear_is_parked_charged_once_or_settled_at_its_worst(platform: Platform):
    first = await platform.start_worker()
    noted = await platform.submit(calls("note", folder=platform.folder, text="n", hold="go"), says("done"))
    charged = await platform.submit(calls("charge", folder=platform.folder, text="c", hold="go"), says("done"))
    calling = await platform.submit(says("slowly", latency=1.5))
    await platform.traced("note")
    await platform.traced("charge")
    await eventually(lambda: platform.lines(calling, "model.started"), "the model's call")
    first.kill()
    platform.release("go")
    await platform.start_worker()

    parked = await platform.becomes(noted, "requires_action")
    assert parked.stop_reason == "needs_reconcile"
    assert len(platform.trace("note")) == 1
    (waiting,) = (await platform.lines(noted))[-1].data["calls"]
    assert (waiting["tool"], waiting["input"]["text"]) == ("note", "n")

    await platform.becomes(charged, "completed")
    assert len(platform.trace("charge")) == 2
    assert len(set(platform.trace("charge"))) == 1  # the same idempotency key

    job = await platform.becomes(calling, "completed")
    lost, settled = await platform.ledger(calling)
    assert (lost["reason"], lost["settled_usd"]) == ("worst_case", lost["reserved_usd"])
    assert settled["reason"] == "settled"
    assert job.counters["cost"] == micros(lost["settled_usd"]) + micros(settled["settled_usd"])
    assert job.counters["reserved"] == 0


async def test_a_frozen_worker_is_taken_over_and_refused_when_it_comes_back(platform: Platform):
    frozen = await platform.start_worker()
    job_id = await platform.submit(
        calls("slow_read", folder=platform.folder, hold="go"),
        calls("note", folder=platform.folder, text="n"),
        says("ok"),
    )
    await platform.traced("slow_read")
    frozen.signal(signal.SIGSTOP)
    await platform.start_worker()
    await platform.traced("slow_read", 2)  # the second attempt is under way, and waits as the first does
    platform.release("go")
    frozen.signal(signal.SIGCONT)
    job = await platform.becomes(job_id, "completed")
    await eventually(lambda: frozen.logged("another attempt owns the job"), lambda: f"a refusal {platform.tails()}")
    assert (job.attempts, len(platform.trace("note"))) == (2, 1)
    lines = await platform.lines(job_id)
    rescued = next(i for i, line in enumerate(lines) if line.type == "job.rescued")
    assert {line.attempt for line in lines[rescued + 1 :]} == {2}
    assert frozen.alive


async def test_a_worker_whose_loop_is_blocked_keeps_its_leases(platform: Platform):
    blocked = await platform.start_worker()
    await platform.start_worker(concurrency=1)
    neighbour = await platform.submit(
        calls("slow_read", folder=platform.folder, hold="go"), says("ok"), priority="high"
    )
    await platform.traced("slow_read")
    culprit = await platform.submit(calls("stall", folder=platform.folder, seconds=2.2 * LEASE), says("ok"))
    ids = [neighbour, culprit]
    await platform.traced("stall")
    platform.release("go")
    jobs = await platform.all_become(ids, "completed")
    assert {(job.attempts, job.lost) for job in jobs} == {(1, 0)}, blocked.tail()
    assert "job.rescued" not in await platform.types(culprit)


async def test_a_job_that_kills_its_worker_three_times_is_set_aside_until_someone_retries_it(platform: Platform):
    workers = [await platform.start_worker()]
    job_id = await platform.submit(calls("die", folder=platform.folder), says("survived"))
    for losses in (1, 2):
        await platform.traced("die", losses)
        workers.append(await platform.start_worker())
    await platform.traced("die", 3)
    spared = await platform.start_worker()
    bystander = await platform.submit(says("fine"))
    job = await platform.becomes(job_id, "failed")
    assert job.error is not None
    assert (job.stop_reason, job.error["code"], job.lost, job.attempts) == ("error", "poison", 3, 3)
    assert job.counters["reserved"] == 0
    assert [await worker.exited(within=1) for worker in workers] == [-signal.SIGKILL] * 3
    await platform.becomes(bystander, "completed")
    platform.release("spare")
    await actions.retry(platform.store, TENANT, job_id)
    job = await platform.becomes(job_id, "completed")
    assert (job.output, job.lost, spared.alive) == ("survived", 0, True)


async def test_records_that_cannot_be_read_are_set_aside_and_disturb_no_other(platform: Platform):
    worker = await platform.start_worker(concurrency=1)
    holding = await platform.submit(calls("slow_read", folder=platform.folder, hold="go"), says("ok"))
    await platform.traced("slow_read")
    future = await platform.submit(says("never"))
    shapeless, no_hash, no_number = damaged = [await platform.submit(says("never")) for _ in range(3)]
    others = [await platform.submit(says("fine")) for _ in range(3)]
    await platform.link.command("HSET", keys.job(future), "v", 99)
    await platform.link.command("HDEL", keys.job(shapeless), "v")
    await platform.link.command("SET", keys.job(no_hash), "rubbish")
    await platform.link.command("HSET", keys.job(no_number), "attempt", "rubbish")
    platform.release("go")
    jobs = await platform.all_become([holding, *others], "completed")
    assert {(job.attempts, job.lost) for job in jobs} == {(1, 0)}

    async def nothing_runs() -> bool:
        return await platform.store.tickets.running() == 0

    await eventually(nothing_runs, "no lease is left")
    dead = await platform.link.command("ZRANGE", keys.DEAD_LETTERS, 0, -1)
    assert sorted(dead) == sorted(job_id.encode() for job_id in damaged)
    assert await platform.link.command("HGET", keys.job(future), "status") == b"queued", "left to a newer worker"
    assert worker.alive
