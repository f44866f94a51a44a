"""Tenants take turns, and a limit of running jobs holds back no one but those that it is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from jobs import actions
from jobs.queue import Claim, queue_names
from jobs.records import Job
from tests.jobs.driver import ENDED_LEASE, TENANT, Driver, attempt_of, limit, push_raw, turn

SIDE = "default.default@clerk@2"
VERSIONS = ["clerk@1", "clerk@2", "typist@1"]


async def many(driver: Driver, count: int, tenant: str = TENANT, **spec: Any) -> list[Job]:
    return [await driver.submit(tenant=tenant, **spec) for _ in range(count)]


async def claimed(driver: Driver, most: int = 100, queues: Sequence[str] | None = None) -> list[str]:
    return [claim.job_id for claim in await driver.claim(most, queues=queues, versions=VERSIONS)]


async def end(driver: Driver, claim: Claim, action: str = "complete") -> None:
    assert claim.job is not None
    await driver.end(claim.job, attempt_of(claim), action)


def ids(*jobs: Job) -> list[str]:
    return [job.id for job in jobs]


def keyed(key: str, most: int) -> dict[str, Any]:
    return {"concurrency": {"key": key, "limit": most}}


# ---- turns


async def test_tenants_take_turns(driver: Driver) -> None:
    a, b, c = [await many(driver, count, tenant) for tenant, count in (("a", 5), ("b", 2), ("c", 1))]
    assert await claimed(driver) == ids(a[0], b[0], c[0], a[1], b[1], a[2], a[3], a[4])


async def test_tenants_take_turns_over_claims_of_one(driver: Driver) -> None:
    a, b = await many(driver, 4, "a"), await many(driver, 2, "b")
    order = []
    for _ in range(6):
        claim = await driver.claim_one()
        order.append(claim.job_id)
        await end(driver, claim)
    assert order == ids(a[0], b[0], a[1], b[1], a[2], a[3])


async def test_the_tenant_with_the_fewest_running_jobs_is_served_first(driver: Driver) -> None:
    """However long the jobs of another take: what it ends, it may begin again."""
    await many(driver, 4, "a")
    await claimed(driver)
    await many(driver, 4, "a")
    b = await many(driver, 4, "b")
    for job in b:
        claim = await driver.claim_one()
        assert claim.job_id == job.id
        await end(driver, claim)


async def test_a_tenant_that_comes_back_has_saved_nothing_up(driver: Driver) -> None:
    await many(driver, 1, "b")
    await end(driver, await driver.claim_one())
    a, c = await many(driver, 4, "a"), await many(driver, 4, "c")
    for _ in range(4):
        await end(driver, await driver.claim_one())
    b = await many(driver, 3, "b")
    assert await claimed(driver, 3) == ids(a[2], c[2], b[0])


async def test_a_priority_comes_before_anyones_turn(driver: Driver) -> None:
    default = await many(driver, 2, "a")
    high = [*await many(driver, 2, "a", priority="high"), *await many(driver, 1, "b", priority="high")]
    assert await claimed(driver) == ids(high[0], high[2], high[1], *default)


async def test_tenants_take_turns_in_side_queues_too(driver: Driver) -> None:
    a, b = await many(driver, 3, "a", agent_version="2"), await many(driver, 2, "b", agent_version="2")
    assert await driver.claim(10) == []
    assert await driver.store.tickets.depths() == {"default.default": 0, SIDE: 5}
    assert await claimed(driver, queues=[SIDE, "default.default"]) == ids(a[0], b[0], a[1], b[1], a[2])


async def test_tickets_from_before_there_were_lanes_are_served(driver: Driver) -> None:
    jobs = await many(driver, 2, session_id="s")
    for job in jobs:
        await push_raw(driver, job)
    other = await many(driver, 1, "b")
    assert await claimed(driver) == ids(jobs[0], other[0])
    assert await driver.tickets() == 0


async def test_a_place_counts_the_tenants_own_jobs(driver: Driver) -> None:
    a, b = await many(driver, 3, "a"), await many(driver, 2, "b")
    assert [await driver.store.tickets.place(job) for job in (*a, *b)] == [0, 1, 2, 0, 1]
    assert await driver.store.tickets.depths() == {"default.default": 5}


async def test_tickets_that_a_switch_withheld_go_back_to_their_lanes(driver: Driver) -> None:
    ours, theirs = await many(driver, 2), await many(driver, 2, "b")
    await turn(driver, f"tenant:{TENANT}", on=True)
    assert await claimed(driver, 1) == ids(theirs[0])
    await turn(driver, f"tenant:{TENANT}", on=False)
    assert await claimed(driver) == ids(ours[0], theirs[1], ours[1])


# ---- limits


async def test_a_tenant_runs_no_more_than_it_may(driver: Driver) -> None:
    await limit(driver, tenant=2)
    ours, theirs = await many(driver, 4), await many(driver, 2, "b")
    first, *_ = await driver.claim(10)
    assert {await driver.status(job) for job in ours[2:]} == {"queued"}
    assert await driver.store.tickets.running() == 4
    assert (await driver.store.tickets.depths())["default.default"] == 2
    assert await claimed(driver) == []
    await end(driver, first)
    assert await claimed(driver) == ids(ours[2])
    assert theirs


async def test_a_limit_holds_over_priorities_and_pools(driver: Driver) -> None:
    await limit(driver, tenant=1)
    gpu = (await many(driver, 1, pool="gpu"))[0]
    low = (await many(driver, 1, priority="low"))[0]
    queues = queue_names(["default", "gpu"])
    (claim,) = await driver.claim(10, queues=queues)
    assert claim.job_id == gpu.id
    await end(driver, claim)
    assert await claimed(driver, queues=queues) == ids(low)


async def test_an_agent_runs_no_more_than_it_may_and_blocks_no_other(driver: Driver) -> None:
    await limit(driver, clerk=1)
    clerks = await many(driver, 3)
    (typist,) = await many(driver, 1, agent="typist")
    first, _ = await driver.claim(10, versions=VERSIONS)
    assert await driver.store.tickets.running() == 2
    assert await driver.status(typist) == "running"
    assert (await driver.store.tickets.depths())["default.default"] == 2
    late = (await many(driver, 1))[0]
    assert await claimed(driver) == []
    await end(driver, first)
    (second,) = await driver.claim(10)
    await end(driver, second, "fail")
    (third,) = await driver.claim(10)
    await end(driver, third)
    assert [second.job_id, third.job_id, *await claimed(driver)] == ids(clerks[1], clerks[2], late)


async def test_children_count_for_their_own_agent(driver: Driver) -> None:
    await limit(driver, clerk=1, typist=1)
    parent, _ = await driver.start()
    child = await driver.submit(parent=parent, agent="typist")
    other = await driver.submit(agent="typist")
    assert await claimed(driver) == ids(child)
    assert await driver.status(other) == "queued"


async def test_a_key_holds_the_jobs_that_name_it(driver: Driver) -> None:
    jobs = await many(driver, 3, **keyed("customer-42", 2))
    others = [*await many(driver, 1, **keyed("customer-7", 1)), *await many(driver, 1)]
    theirs = await many(driver, 1, "b", **keyed("customer-42", 2))
    claims = await driver.claim(10)
    assert {claim.job_id for claim in claims} == set(ids(*jobs[:2], *others, *theirs))
    assert await driver.store.tickets.place(jobs[2]) == 0
    await end(driver, next(claim for claim in claims if claim.job_id == jobs[1].id))
    assert await claimed(driver) == ids(jobs[2])


async def test_all_limits_have_room_or_none_is_taken(driver: Driver) -> None:
    """What the key holds takes no slot of the agent, and what the agent holds none of the key."""
    await limit(driver, clerk=1)
    first, second, third = [*await many(driver, 2, **keyed("k", 1)), *await many(driver, 1)]
    (running,) = await driver.claim(10)
    assert running.job_id == first.id
    typist = await driver.submit(agent="typist", **keyed("k", 2))
    assert await claimed(driver) == ids(typist)
    await end(driver, running)
    (running,) = await driver.claim(10)
    assert running.job_id == third.id, "the key has room for one of two alone, and that one runs"
    assert await driver.status(second) == "queued"


@pytest.mark.parametrize("action", ["complete", "fail", "stop", "park", "suspend", "hand_back"])
async def test_whatever_ends_an_attempt_gives_its_slots_back(driver: Driver, action: str) -> None:
    await limit(driver, tenant=1, clerk=1)
    (first,) = await many(driver, 1, **keyed("k", 1))
    claim = await driver.claim_one()
    (second,) = await many(driver, 1, **keyed("k", 1))
    assert await claimed(driver) == []
    await end(driver, claim, action)
    assert await claimed(driver) == ids(first if action == "hand_back" else second)


@pytest.mark.parametrize("action", ["rescue", "bury"])
async def test_a_lost_worker_gives_its_slots_back(driver: Driver, action: str) -> None:
    await limit(driver, tenant=1)
    job, attempt = await driver.start(lease=ENDED_LEASE)
    (second,) = await many(driver, 1)
    assert await claimed(driver) == []
    await driver.store.move(job, action, attempt=attempt, if_lease_ended=True, lost=True)
    assert await claimed(driver) == ids(job if action == "rescue" else second)


async def test_the_slot_of_a_job_that_is_set_aside_is_found(driver: Driver) -> None:
    await limit(driver, tenant=1)
    job, attempt = await driver.start()
    (second,) = await many(driver, 1)
    assert await claimed(driver) == []
    assert await driver.store.tickets.sweep_limits() == 0
    await driver.store.tickets.set_aside(job.id, attempt.token, attempt.queue)
    assert await driver.store.tickets.sweep_limits() == 1
    assert await claimed(driver) == ids(second)


@pytest.mark.parametrize("more", [3, None])
async def test_a_limit_that_is_raised_or_lifted_lets_go(driver: Driver, more: int | None) -> None:
    await limit(driver, tenant=2, typist=1)
    jobs = [*await many(driver, 3, agent="typist"), *await many(driver, 1)]
    assert await claimed(driver) == ids(jobs[0], jobs[3])
    await limit(driver, tenant=more, typist=more)
    assert await driver.store.tickets.sweep_limits() > 0
    assert await claimed(driver) == ids(*jobs[1 : 2 if more else 3])


async def test_a_job_that_is_held_can_be_cancelled_and_is_in_nobodys_way(driver: Driver) -> None:
    jobs = await many(driver, 3, **keyed("k", 1))
    claim = (await driver.claim(10))[0]
    await actions.cancel(driver.store, TENANT, jobs[1].id)
    await end(driver, claim)
    assert await claimed(driver) == ids(jobs[2])


async def test_a_held_ticket_is_a_ticket(driver: Driver) -> None:
    await limit(driver, clerk=1)
    jobs = await many(driver, 3)
    assert await claimed(driver) == ids(jobs[0])
    assert not any([await driver.store.release(job.id) for job in jobs])
    assert [await driver.store.tickets.place(job) for job in jobs] == [None, 0, 1]


async def test_a_job_of_another_version_is_held_where_its_workers_are(driver: Driver) -> None:
    jobs = await many(driver, 2, agent_version="2", **keyed("k", 1))
    assert await driver.claim(10) == []
    (claim,) = await driver.claim(10, queues=[SIDE], versions=VERSIONS)
    assert await driver.store.tickets.depths() == {"default.default": 0, SIDE: 1}
    await end(driver, claim)
    assert await claimed(driver, queues=[SIDE]) == ids(jobs[1])


async def test_jobs_that_two_limits_hold_wait_for_both(driver: Driver) -> None:
    await limit(driver, clerk=2)
    one = await many(driver, 3, **keyed("k", 1))
    two = await many(driver, 3, **keyed("l", 3))
    first, second = await driver.claim(10)
    assert [first.job_id, second.job_id] == ids(one[0], two[0])
    order = []
    running = [first, second]
    while running:
        await end(driver, running.pop(0))
        for _ in range(3):
            found = await driver.claim(10)
            running += found
            order += [claim.job_id for claim in found]
        assert len(running) <= 2
    assert set(order) == set(ids(*one[1:], *two[1:]))
