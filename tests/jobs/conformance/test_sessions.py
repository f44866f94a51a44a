"""The jobs of one session run one after another, in the order in which they were queued."""

from __future__ import annotations

import pytest

from jobs.link import milliseconds
from jobs.moves import Attempt
from tests.jobs.driver import ENDED_LEASE, HOUR_MS, TENANT, Driver, attempt_of, push_raw

S = "chat-1"


async def three(driver: Driver):
    return [await driver.submit(session_id=S) for _ in range(3)]


async def test_one_at_a_time_and_in_order(driver: Driver) -> None:
    jobs = await three(driver)
    for job, following in zip(jobs, [*jobs[1:], None], strict=True):
        (claim,) = await driver.claim(10)
        assert claim.job_id == job.id
        assert await driver.claim(10) == []
        moved = await driver.end(job, attempt_of(claim))
        assert moved is not None
        assert moved.following == (following and following.id)


@pytest.mark.parametrize("action", ["complete", "fail", "stop"])
async def test_an_ending_names_and_releases_the_next(driver: Driver, action: str) -> None:
    first, second, _ = await three(driver)
    claim = await driver.claim_one()
    moved = await driver.end(first, attempt_of(claim), action)
    assert moved is not None
    assert moved.following == second.id
    assert await driver.tickets() == 1
    assert (await driver.claim_one()).job_id == second.id


async def test_a_buried_job_releases_the_next(driver: Driver) -> None:
    first, second, _ = await three(driver)
    claim = await driver.claim_one(lease=ENDED_LEASE)
    await driver.end(first, attempt_of(claim), "bury", if_lease_ended=True)
    assert (await driver.claim_one()).job_id == second.id


@pytest.mark.parametrize("action", ["cancel", "expire"])
async def test_the_first_one_ends_while_it_waits(driver: Driver, action: str) -> None:
    first, second, _ = await three(driver)
    await driver.store.move(first, action)
    assert [c.job_id for c in await driver.claim(10)] == [second.id]


async def test_one_in_the_middle_ends_while_it_waits(driver: Driver) -> None:
    first, second, third = await three(driver)
    await driver.store.move(second, "cancel")
    assert await driver.tickets() == 1
    claim = await driver.claim_one()
    await driver.end(first, attempt_of(claim))
    assert [c.job_id for c in await driver.claim(10)] == [third.id]


@pytest.mark.parametrize("action", ["park", "suspend", "hand_back"])
async def test_one_that_is_not_done_keeps_its_place(driver: Driver, action: str) -> None:
    first, second, _ = await three(driver)
    claim = await driver.claim_one()
    await driver.end(first, attempt_of(claim), action)
    await driver.sweep()
    again = [c.job_id for c in await driver.claim(10)]
    assert again == ([first.id] if action == "hand_back" else [])
    assert await driver.status(second) == "queued"


@pytest.mark.parametrize(("rest", "wake"), [("park", "decide"), ("suspend", "resume")])
async def test_one_that_goes_on_is_the_first_again(driver: Driver, rest: str, wake: str) -> None:
    first, *_ = await three(driver)
    await driver.end(first, attempt_of(await driver.claim_one()), rest)
    await driver.store.move(first, wake)
    assert [c.job_id for c in await driver.claim(10)] == [first.id]


async def test_a_deferred_one_holds_up_the_others(driver: Driver) -> None:
    first, *_ = await three(driver)
    await driver.end(first, attempt_of(await driver.claim_one()), "hand_back", due_ms=-HOUR_MS)
    await driver.sweep()
    assert await driver.claim(10) == []


async def test_a_retried_one_goes_to_the_end(driver: Driver) -> None:
    first, second, third = await three(driver)
    await driver.end(first, attempt_of(await driver.claim_one()), "fail")
    await driver.store.move(await driver.get(first), "retry")
    for expected in (second, third, first):
        (claim,) = await driver.claim(10)
        assert claim.job_id == expected.id
        await driver.end(expected, attempt_of(claim))


async def test_an_old_ticket_does_not_let_a_job_overtake(driver: Driver) -> None:
    first, second, _ = await three(driver)
    await push_raw(driver, second)
    claims = await driver.claim(10)
    assert [c.job_id for c in claims] == [first.id]
    await driver.end(first, Attempt(claims[0].token, claims[0].queue))
    assert [c.job_id for c in await driver.claim(10)] == [second.id]


async def test_a_scheduled_one_joins_when_it_is_due(driver: Driver) -> None:
    later = await driver.submit(session_id=S, run_at=milliseconds() + HOUR_MS)
    first = await driver.submit(session_id=S)
    claim = await driver.claim_one()
    assert claim.job_id == first.id
    await driver.store.move(later, "due")
    assert await driver.claim(10) == []
    await driver.end(first, attempt_of(claim))
    assert [c.job_id for c in await driver.claim(10)] == [later.id]


async def test_sessions_are_independent_and_the_tenants_own(driver: Driver) -> None:
    jobs = {(await driver.submit(session_id=S)).id, (await driver.submit(session_id="chat-2")).id}
    foreign = await driver.submit(session_id=S, tenant="rival")
    await driver.submit(session_id=S)
    assert {c.job_id for c in await driver.claim(10)} == {*jobs, foreign.id}


async def test_the_next_may_run_in_another_queue(driver: Driver) -> None:
    first = await driver.submit(session_id=S, priority="low")
    second = await driver.submit(session_id=S, priority="high")
    claim = await driver.claim_one()
    assert claim.job_id == first.id
    await driver.end(first, attempt_of(claim))
    assert (await driver.claim_one()).queue == "default.high~acme"
    assert (await driver.store.get(TENANT, second.id)).status == "running"
