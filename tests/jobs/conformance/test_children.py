"""Child jobs spend inside the budgets of the jobs above them."""

from __future__ import annotations

import asyncio

import pytest

from agent_core.errors import BudgetError
from agent_core.types import Budget
from jobs.records import Job
from tests.jobs.books import check, limit, prune
from tests.jobs.driver import ENDED_LEASE, Driver
from tests.jobs.spender import TOKENS, Spender

UNLIMITED = Budget(usd=None)


async def child_of(driver: Driver, parent: Job, budget: Budget = UNLIMITED, **spec: object) -> Spender:
    return await Spender.start(driver.store, parent=parent, budget=budget, **spec)


async def test_a_call_is_charged_to_every_job_above_it(driver: Driver) -> None:
    top = await Spender.start(driver.store, budget=UNLIMITED)
    middle = await child_of(driver, top.job)
    bottom = await child_of(driver, middle.job)
    assert bottom.job.spec.ancestors == [top.job.id, middle.job.id]
    assert bottom.job.spec.parent_id == middle.job.id
    call = await bottom.begin(reserved=900, tokens=2000)
    jobs = [one.job for one in (top, middle, bottom)]
    records = (await check(driver, *jobs)).records
    assert records[top.job.id] == records[middle.job.id] == {"held": 900, "held_tokens": 2000}
    assert records[bottom.job.id] == {"reserved": 900, "held": 900, "held_tokens": 2000}
    await bottom.end(call, settled=70)
    await middle.spend(30)
    books = await check(driver, *jobs)
    assert books.records[top.job.id] == {"spent": 100, "spent_tokens": 2 * TOKENS}
    assert books.records[middle.job.id] == {"cost": 30, "spent": 100, "spent_tokens": 2 * TOKENS}
    assert books.records[bottom.job.id] == {"cost": 70, "spent": 70, "spent_tokens": TOKENS}
    assert books.meters["tenant", "total"]["settled"] == 100, "once, however many jobs are above it"


@pytest.mark.parametrize("own", ["1", None])
async def test_children_are_held_by_what_is_left_of_their_parents(driver: Driver, own: str | None) -> None:
    parent = await Spender.start(driver.store, budget=Budget(usd="0.001", tokens=9000))
    await parent.spend(100)
    first = await child_of(driver, parent.job, Budget(usd=own))
    second = await child_of(driver, parent.job, Budget(usd=own))
    grandchild = await child_of(driver, second.job, Budget(usd=own))
    await first.begin(reserved=500, tokens=100)
    await grandchild.begin(reserved=350, tokens=100)
    for one in (parent, first, second, grandchild):
        refusal = await one.refused(reserved=51, tokens=1)
        assert (refusal.scope, refusal.limit, refusal.left) == ("job", 1000, 50)
    assert (await first.refused(reserved=1, tokens=9000)).unit == "tokens"
    await second.begin(reserved=50)
    await check(driver, *(one.job for one in (parent, first, second, grandchild)))


async def test_a_child_is_held_by_its_own_limit_too(driver: Driver) -> None:
    parent = await Spender.start(driver.store, budget=Budget(usd="1"))
    child = await child_of(driver, parent.job, Budget(usd="0.0005"))
    assert (await child.refused(reserved=501)).limit == 500
    await parent.begin(reserved=501)


async def test_a_cap_of_each_job_counts_its_children(driver: Driver) -> None:
    await limit(driver, "job:*", 1000)
    parent = await Spender.start(driver.store, budget=UNLIMITED)
    for _ in range(2):
        await (await child_of(driver, parent.job)).begin(reserved=450)
    third = await child_of(driver, parent.job)
    assert (await third.refused(reserved=101)).scope == "job:*"
    await third.begin(reserved=100)


async def test_children_at_once_stay_inside_their_parents_limit(driver: Driver) -> None:
    parent = await Spender.start(driver.store, budget=Budget(usd="0.1"))
    children = [await child_of(driver, parent.job, Budget(usd="0.1")) for _ in range(3)]

    async def spend(child: Spender) -> None:
        while True:
            try:
                call = await child.begin(reserved=9_000)
            except BudgetError:
                return
            await child.end(call, settled=4_321, reserved=9_000)

    await asyncio.gather(*map(spend, children))
    books = await check(driver, parent.job, *(child.job for child in children))
    assert 91_000 < books.records[parent.job.id]["spent"] <= 100_000


async def test_what_a_lost_child_had_reserved_is_settled_with_those_above(driver: Driver) -> None:
    parent = await Spender.start(driver.store, budget=UNLIMITED)
    child = await child_of(driver, parent.job, lease=ENDED_LEASE)
    await child.begin(reserved=900, tokens=2000)
    assert await driver.rescue(child.job.id, child.attempt) is not None
    books = await check(driver, parent.job, child.job)
    assert books.records[parent.job.id] == {"spent": 900, "spent_tokens": 2000}


async def test_a_child_outlives_the_record_of_its_parent(driver: Driver) -> None:
    """A parent may end, and be forgotten, while a child that it did not wait for still runs."""
    top = await Spender.start(driver.store, budget=Budget(usd="0.001"))
    middle = await child_of(driver, top.job)
    bottom = await child_of(driver, middle.job)
    call = await bottom.begin(reserved=900)
    await middle.finish()
    await prune(driver, middle.job)
    await bottom.end(call, settled=70)
    books = await check(driver, top.job, bottom.job)
    assert books.records[top.job.id]["spent"] == 70
    refusal = await bottom.refused(reserved=931)
    assert (refusal.scope, refusal.limit) == ("job", 1000), "those above the forgotten one still hold it"
    assert await driver.store.get_many([middle.job.id]) == [None], "nothing of it comes back"
