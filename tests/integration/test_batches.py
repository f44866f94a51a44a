"""`service: "batch"`: model calls go through the Message Batches API at half the price, whatever dies meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core.pricing import PUBLISHED
from agent_core.types import Json, micros
from jobs import actions, keys
from tests.integration.harness import TENANT, Platform, calls, eventually, says


async def submit(platform: Platform, *turns: Json, **fields: Any) -> str:
    return await platform.submit(*turns, service="batch", **fields)


async def submitted(platform: Platform, job_id: str) -> str:
    """The batch that has a call of the job, which waits for it without a worker."""
    await eventually(lambda: platform.lines(job_id, "model.submitted"), f"{job_id} with a batch {platform.tails()}")
    await platform.becomes(job_id, "queued")
    found: str = (await platform.lines(job_id, "model.submitted"))[-1].data["batch_id"]
    return found


def worth(row: Json, tier: str) -> int:
    return PUBLISHED.price(row["model"], {**row["usage"], "service_tier": tier})


async def test_the_calls_of_jobs_that_can_wait_share_batches_and_cost_half(shared: Platform):
    turns = (calls("echo", text="hi"), says("done"))
    ids = [await submit(shared, *turns) for _ in range(5)]
    now = await shared.submit(*turns)
    jobs = await shared.all_become(ids, "completed")
    assert {job.output for job in jobs} == {"done"}
    assert {job.counters["reserved"] for job in jobs} == {0}
    rows = [row for job_id in ids for row in await shared.ledger(job_id)]
    assert {row["reason"] for row in rows} == {"settled"}
    for row in rows:
        assert row["usage"]["service_tier"] == "batch"
        assert micros(row["settled_usd"]) == worth(row, "batch")
        assert 0 <= 2 * worth(row, "batch") - worth(row, "standard") <= 1  # each is rounded up
        assert worth(row, "batch") <= micros(row["reserved_usd"])
    assert sum(job.counters["cost"] for job in jobs) == sum(micros(row["settled_usd"]) for row in rows)
    at_once = await shared.ledger((await shared.becomes(now, "completed")).id)
    assert 0 <= 2 * micros(rows[0]["reserved_usd"]) - micros(at_once[0]["reserved_usd"]) <= 1

    seen = await shared.simulator.calls()
    assert sum(call["batch_id"] is None for call in seen) == 2  # of the job that cannot wait
    assert sum(call["batch_id"] is not None for call in seen) == len(rows) == 10
    assert len({call["batch_id"] for call in seen}) <= 5
    assert not await shared.link.command("EXISTS", keys.BATCHES)


@pytest.mark.parametrize("waits", [True, False])
async def test_a_worker_that_dies_while_a_batch_has_the_call_loses_and_repeats_nothing(platform: Platform, waits: bool):
    first = await platform.start_worker(failpoints="" if waits else "before_end=kill")
    job_id = await submit(platform, says("done", latency=2))
    if waits:
        await submitted(platform, job_id)
        first.kill()
    await first.exited(within=20)
    await platform.start_worker()
    job = await platform.becomes(job_id, "completed", within=20)
    rescued = (await platform.types(job_id)).count("job.rescued")
    assert (job.output, rescued) == ("done", 0 if waits else 1)
    assert [call["outcome"] for call in await platform.simulator.calls()] == ["completed"]
    (row,) = await platform.ledger(job_id)
    assert (row["reason"], micros(row["settled_usd"])) == ("settled", worth(row, "batch"))
    assert job.counters["cost"] == worth(row, "batch")
    assert job.counters["reserved"] == 0


async def test_a_batch_that_nobody_noted_is_paid_for_at_its_worst_and_the_call_is_made_again(platform: Platform):
    first = await platform.start_worker(failpoints="after_submit=kill")
    job_id = await submit(platform, says("done"))
    await first.exited(within=20)
    await platform.start_worker()
    job = await platform.becomes(job_id, "completed", within=20)
    assert len(await platform.simulator.calls()) == 2
    lost, settled = await platform.ledger(job_id)
    assert (lost["reason"], lost["settled_usd"]) == ("worst_case", lost["reserved_usd"])
    assert settled["reason"] == "settled"
    assert job.counters["cost"] == micros(lost["settled_usd"]) + micros(settled["settled_usd"])
    assert job.counters["reserved"] == 0


async def test_a_cancelled_job_is_settled_at_its_worst_and_an_unwanted_batch_is_cancelled(shared: Platform):
    ids = [await submit(shared, says("never", latency=600)) for _ in range(2)]
    batches = {await submitted(shared, job_id) for job_id in ids}
    for job_id in ids:
        before = await shared.job(job_id)
        job = await actions.cancel(shared.store, TENANT, job_id)
        assert job.status == "cancelled"
        assert before.counters["reserved"] == job.counters["cost"] > 0
        assert job.counters["reserved"] == 0
        (row,) = await shared.ledger(job_id)
        assert (row["reason"], micros(row["settled_usd"])) == ("worst_case", job.counters["cost"])

    async def outcomes() -> bool:
        seen = [call for call in await shared.simulator.calls() if call["batch_id"] in batches]
        return {call["outcome"] for call in seen} == {"canceled"}

    await eventually(outcomes, "the batches' cancel")
    assert not await shared.link.command("EXISTS", keys.BATCHES)
