"""Submitting, with and without an idempotency key, and reading back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agent_core.types import Budget
from jobs.errors import IdempotencyError, NotFoundError
from jobs.link import milliseconds
from jobs.moves import Idempotency
from tests.jobs.driver import HOUR_MS, SPEC, TENANT, Driver

KEY = Idempotency("digest", "fingerprint")


async def test_a_submission_is_a_queued_job_with_one_ticket(driver: Driver) -> None:
    spec = replace(SPEC, input={"text": "ä", "n": [1, None]}, tags=["t"], metadata={"a": 1}, user="u")
    submitted = await driver.store.submit(TENANT, spec, Budget(usd="0.25", steps=3))
    job = await driver.get(submitted.job)
    assert not submitted.replayed
    assert (job.spec, job.budget, job.status) == (spec, Budget(usd="0.25", steps=3), "queued")
    assert (job.attempts, job.created_ms) == (0, submitted.job.created_ms)
    (line,) = await driver.store.lines(job.id)
    assert (line.type, line.attempt, line.data) == ("job.queued", 0, {"status": "queued"})
    assert await driver.store.tickets.place(job) == 0
    assert await driver.store.tickets.depths() == {"default.default": 1}


async def test_a_scheduled_job_has_no_ticket_until_it_is_due(driver: Driver) -> None:
    later = await driver.submit(run_at=milliseconds() + HOUR_MS)
    now = await driver.submit(run_at=1)
    assert (later.status, now.status) == ("scheduled", "scheduled")
    assert await driver.tickets() == 0
    assert (await driver.store.tickets.overdue()).due == [now.id]
    await driver.sweep()
    assert (await driver.status(later), await driver.status(now)) == ("scheduled", "queued")
    assert (await driver.claim_one()).job_id == now.id


async def test_the_same_key_and_body_is_the_first_answer_again(driver: Driver) -> None:
    first = await driver.store.submit(TENANT, SPEC, Budget(), idempotency=KEY)
    claim = await driver.claim_one()
    again = await driver.store.submit(TENANT, SPEC, Budget(), idempotency=KEY)
    earlier = await driver.store.earlier(TENANT, KEY)
    assert claim.job_id == first.job.id
    assert again.replayed
    assert again.job.to_json() == first.job.to_json()
    assert earlier == again
    assert await driver.tickets() == 0


async def test_the_same_key_with_another_body_is_refused(driver: Driver) -> None:
    await driver.submit(key=KEY)
    other = replace(KEY, fingerprint="other")
    with pytest.raises(IdempotencyError):
        await driver.submit(key=other)
    with pytest.raises(IdempotencyError):
        await driver.store.earlier(TENANT, other)
    assert await driver.tickets() == 1


async def test_a_key_is_the_tenants_own(driver: Driver) -> None:
    first = await driver.submit(key=KEY)
    assert await driver.store.earlier("rival", KEY) is None
    second = await driver.submit(key=KEY, tenant="rival")
    assert second.id != first.id
    assert await driver.store.earlier(TENANT, replace(KEY, digest="never used")) is None


async def test_twenty_submissions_at_once_with_one_key_are_one_job(driver: Driver) -> None:
    results = await asyncio.gather(
        *(driver.store.submit(TENANT, SPEC, Budget(), idempotency=KEY) for _ in range(20)),
    )
    assert len({result.job.id for result in results}) == 1
    assert sorted(result.replayed for result in results) == [False] + [True] * 19
    assert await driver.tickets() == 1


async def test_another_tenants_job_is_as_one_that_is_not_there(driver: Driver) -> None:
    job = await driver.submit()
    with pytest.raises(NotFoundError) as foreign:
        await driver.store.get("rival", job.id)
    with pytest.raises(NotFoundError) as missing:
        await driver.store.get(TENANT, "job_none")
    assert str(foreign.value).replace(job.id, "ID") == str(missing.value).replace("job_none", "ID")
    assert (await driver.store.get(None, job.id)).id == job.id


async def test_many_jobs_come_in_the_order_asked_for(driver: Driver) -> None:
    one, two = await driver.submit(), await driver.into("scheduled")
    found = await driver.store.get_many([two.id, "job_none", one.id])
    assert [job and job.id for job in found] == [two.id, None, one.id]
    assert await driver.store.get_many([]) == []


async def test_lines_are_paged_by_their_ids(driver: Driver) -> None:
    job, attempt = await driver.start()
    await driver.write(job, attempt, 1, "a", "b", "c")
    lines = await driver.store.lines(job.id)
    assert [line.type for line in lines] == ["job.queued", "job.started"] + ["state.changed"] * 3
    assert [line.position for line in lines] == sorted({line.position for line in lines})
    assert await driver.store.lines(job.id, limit=2) == lines[:2]
    assert await driver.store.lines(job.id, lines[1].id, 2) == lines[2:4]
    assert await driver.store.lines(job.id, lines[-1].id) == []
    assert await driver.store.lines("job_none") == []


async def test_what_was_handed_in_may_change_afterwards(driver: Driver) -> None:
    payload = {"list": [1]}
    job = await driver.submit(input=payload)
    payload["list"].append(2)
    assert (await driver.get(job)).spec.input == {"list": [1]}


@pytest.mark.parametrize("status", ["queued", "scheduled", "paused", "requires_action"])
async def test_a_job_expires_wherever_it_waits(driver: Driver, status) -> None:
    job = await driver.into(status, expires_at=1)
    assert (await driver.store.tickets.overdue()).expired == [job.id]
    await driver.sweep()
    assert await driver.status(job) == "expired"
    assert (await driver.store.tickets.overdue()).expired == []
    assert await driver.claim(5) == []


async def test_a_running_job_does_not_expire_but_may_after_it_is_handed_back(driver: Driver) -> None:
    job, attempt = await driver.start(expires_at=1)
    await driver.sweep()
    assert await driver.status(job) == "running"
    await driver.end(job, attempt, "hand_back")
    await driver.sweep()
    assert await driver.status(job) == "expired"


async def test_a_job_that_has_the_id_already_is_the_answer(driver: Driver) -> None:
    first = await driver.store.submit(TENANT, SPEC, Budget(), job_id="job_1")
    again = await driver.store.submit(TENANT, replace(SPEC, input="other"), Budget(), job_id="job_1")
    assert (first.job.id, first.replayed, again.replayed) == ("job_1", False, True)
    assert again.job.to_json() == first.job.to_json()
    assert await driver.tickets() == 1
    assert (await driver.claim_one()).job_id == "job_1"
    late = await driver.store.submit(TENANT, SPEC, Budget(), job_id="job_1")
    assert (late.replayed, await driver.tickets()) == (True, 0)
