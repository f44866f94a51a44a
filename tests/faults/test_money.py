"""Budgets under fire: jobs at once, workers killed, calls cut off. No limit is passed, and nothing stays reserved."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from agent_core.types import MICROS, Budget
from jobs import keys
from jobs.agents import AgentCatalogue
from jobs.audit import audit
from jobs.budgets import Budgets, ScopeBudget
from jobs.journal import ledger_rows
from jobs.records import JobSpec
from tests.faults.rig import LEASE, Rig
from tests.faults.scale import Scale, scales
from tests.integration.harness import TENANT, eventually, says, script

WORKERS = 4
USER_LIMIT = 5 * MICROS
DAY_LIMIT = 1 * MICROS
PARENT_LIMIT = MICROS // 10
LONG = "word " * 200
"""A reply that costs about half a cent."""


class Watch:
    """Looks at accounts again and again; `most` is the most that each had settled and reserved at once."""

    def __init__(self, rig: Rig, accounts: dict[str, tuple[str, str]]) -> None:
        self._rig = rig
        self._accounts = accounts
        self.samples = 0
        self.most: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            for key, (settled, reserved) in self._accounts.items():
                found = await self._rig.link.command("HMGET", key, settled, reserved)
                self.most[key] = max(self.most[key], sum(int(amount or 0) for amount in found))
            self.samples += 1
            await asyncio.sleep(0.005)


@asynccontextmanager
async def watched(rig: Rig, accounts: dict[str, tuple[str, str]]) -> AsyncIterator[Watch]:
    watch = Watch(rig, accounts)
    looking = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


async def settled(rig: Rig) -> None:
    """Returns once no call is open any more; the books must be right to the micro-dollar then."""

    async def nothing_open() -> bool:
        return int(await rig.link.command("HGET", keys.meter(TENANT, "tenant", "total"), "reserved") or 0) == 0

    await eventually(nothing_open, "the end of every reservation", within=6 * LEASE)
    found = await audit(rig.link, TENANT)
    assert found.exact, found.differences[:20]
    assert not found.unchecked
    assert found.jobs


@scales(Scale(jobs=80, every=(0.3, 0.6)), Scale(jobs=200, every=(0.5, 1.5)), share=0.0)
async def test_no_limit_is_passed(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    budgets, day_limit = Budgets(rig.store), DAY_LIMIT * scale.jobs // 200
    await budgets.put(TENANT, ScopeBudget("user:u1", "total", USER_LIMIT, None))
    day = (await budgets.put(TENANT, ScopeBudget("tenant", "day", day_limit, None))).window
    user, tenant = keys.meter(TENANT, "user:u1", "total"), keys.meter(TENANT, "tenant", day)
    workers = [rig.start_worker(concurrency=100) for _ in range(WORKERS)]
    orders = [f"order-{number}" for number in range(scale.jobs)]
    async with watched(rig, {user: ("settled", "reserved"), tenant: ("settled", "reserved")}) as watch:
        await asyncio.gather(*(submit(rig, order) for order in orders))
        for worker in workers[: WORKERS // 2]:
            await asyncio.sleep(random.uniform(*scale.every))  # the experiment: a kill at a random moment
            worker.kill()
        await rig.settle(orders, within=300)
    await settled(rig)
    assert watch.samples > 50
    assert watch.most[tenant] <= day_limit
    assert watch.most[user] <= USER_LIMIT
    spent = int(await rig.link.command("HGET", tenant, "settled"))
    ends = Counter((job.status, job.stop_reason) for job in (await rig.evidence()).jobs.values())
    assert set(ends) <= {("completed", "end_turn"), ("failed", "budget_exceeded")}, ends
    assert ends["failed", "budget_exceeded"], "the limit was never reached"
    assert spent > day_limit * 0.8, "most of the budget was left"
    report(
        "never over",
        jobs=scale.jobs,
        workers_killed=WORKERS // 2,
        limit_micros=day_limit,
        most_at_once=watch.most[tenant],
        settled=spent,
        completed=ends["completed", "end_turn"],
        samples=watch.samples,
        drift=0,
    )


async def submit(rig: Rig, order: str) -> None:
    turns = [says(LONG, stop_reason="pause_turn", latency=0.1)] * 4
    rig.ids[order] = await rig.client.submit(order, *turns, says("done", latency=0.1), user="u1")


@scales(Scale(jobs=50, every=(1.5, 2.5)), Scale(jobs=1000, every=(2.0, 5.0)), share=0.0)
async def test_nothing_stays_reserved(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    ways = [cancelled, client_gone, lost, overloaded, cut]
    rounds = [f"{ways[number % len(ways)].__name__}-{number}" for number in range(scale.jobs)]
    workers = [rig.start_worker(concurrency=60) for _ in range(2)]
    killing = asyncio.create_task(keep_killing(rig, workers, scale.every))
    slots = asyncio.Semaphore(40)

    async def one(number: int) -> None:
        async with slots:
            await ways[number % len(ways)](rig, rounds[number])

    try:
        async with asyncio.timeout(900), asyncio.TaskGroup() as group:
            for number in range(scale.jobs):
                group.create_task(one(number))
    finally:
        killing.cancel()
        with suppress(asyncio.CancelledError):
            await killing
    await settled(rig)
    evidence = await rig.evidence()
    assert {job.counters["reserved"] for job in evidence.jobs.values()} == {0}
    reasons = Counter(
        row["reason"] for job_id, lines in evidence.journals.items() for row in ledger_rows(job_id, lines)
    )
    assert set(reasons) == {"settled", "worst_case", "released", "cut_stream"}
    report("no leak", rounds=len(rounds), rows=dict(reasons), reserved=0, drift=0)


async def keep_killing(rig: Rig, workers: list[Any], every: tuple[float, float]) -> None:
    while True:
        await asyncio.sleep(random.uniform(*every))
        workers.pop(0).kill()
        workers.append(rig.start_worker(concurrency=60))


async def cancelled(rig: Rig, order: str) -> None:
    """The job is cancelled while its call is open."""
    job_id = await rig.client.submit(order, says("never heard", latency=20))
    await eventually(lambda: reserved(rig, job_id), "its reservation", within=60)
    await rig.client.post(f"/v1/jobs/{job_id}/cancel", {})
    assert (await rig.client.watch(order, job_id))["status"] == "cancelled"


async def client_gone(rig: Rig, order: str) -> None:
    """The client that waits for the answer hangs up."""
    text = script(says("fine", latency=0.3), key=order)
    await rig.client.hang_up("/v1/run", {"agent": "payer", "input": text, "tags": [order]}, after=0.15)
    job_id = await eventually(lambda: rig.client.tagged(order), "its job", within=60)
    await completes(rig, order, job_id)


async def lost(rig: Rig, order: str) -> None:
    """Its call is long enough for a kill to meet it."""
    job_id = await rig.client.submit(order, *[says("on", stop_reason="pause_turn", latency=0.5)] * 3, says("fine"))
    await completes(rig, order, job_id)


async def overloaded(rig: Rig, order: str) -> None:
    job_id = await rig.client.submit(order, says("fine", faults=[{"status": 529}, {"status": 529}]))
    await completes(rig, order, job_id)


async def cut(rig: Rig, order: str) -> None:
    job_id = await rig.client.submit(order, says("fine words " * 50, faults=[{"cut": 0.5}, {"hang": 0.1}]))
    await completes(rig, order, job_id)


async def completes(rig: Rig, order: str, job_id: str) -> None:
    """Waits for its end, which may be that of a job that lost its worker too often."""
    job = await rig.client.watch(order, job_id)
    assert job["status"] == "completed" or job["error"]["code"] == "poison", job


async def reserved(rig: Rig, job_id: str) -> bool:
    return (await rig.store.get(TENANT, job_id)).counters["reserved"] > 0


@pytest.mark.parametrize("jobs", [pytest.param(4, id="one parent")])
async def test_children_stay_inside_their_parents_budget(rig: Rig, jobs: int, report: Callable[..., None]) -> None:
    """A parent and three children, each of which might spend a dollar."""
    rig.start_worker()
    version = (await AgentCatalogue(rig.link).get("payer")).version
    work = [says(LONG, stop_reason="pause_turn")] * 15
    spec = JobSpec(agent="payer", agent_version=version, input=script(*work, says("done"), latency=0.02))
    parent = (await rig.store.submit(TENANT, spec, Budget(usd="0.10"))).job
    async with watched(rig, {keys.job(parent.id): ("spent", "held")}) as watch:
        children = [
            (await rig.store.submit(TENANT, spec.under(parent), Budget(usd="1.00"))).job for _ in range(jobs - 1)
        ]
        family = [parent.id, *(child.id for child in children)]
        await asyncio.gather(*(rig.client.watch("family", job_id) for job_id in family))
    await settled(rig)
    ended = [await rig.store.get(TENANT, job_id) for job_id in family]
    spent = sum(job.counters["cost"] for job in ended)
    assert spent == ended[0].counters["spent"] <= PARENT_LIMIT
    assert watch.most[keys.job(parent.id)] <= PARENT_LIMIT
    assert "budget_exceeded" in {job.stop_reason for job in ended}
    report("children", limit_micros=PARENT_LIMIT, most_at_once=watch.most[keys.job(parent.id)], settled=spent)
