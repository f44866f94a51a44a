"""Every transition of the table, from every status."""

from __future__ import annotations

import pytest

from jobs.errors import ConflictError, NotFoundError
from jobs.journal import LAST_EVENTS
from jobs.moves import Attempt
from jobs.records import Job
from jobs.status import ENDED, STATUSES, TRANSITIONS, Status
from tests.jobs.driver import TENANT, Driver, allowed, push_raw

MOVES = sorted(TRANSITIONS.keys() - {"claim"})


def attempt_on(job: Job) -> Attempt | None:
    return Attempt(job.token, job.queue) if job.token else None


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("action", MOVES)
async def test_a_move_is_made_from_its_sources_and_refused_from_the_rest(
    driver: Driver, status: Status, action: str
) -> None:
    before = await driver.into(status)
    assert before.status == status
    lines = await driver.store.lines(before.id)
    if not allowed(status, action):
        with pytest.raises(ConflictError) as caught:
            await driver.store.move(before, action, attempt=attempt_on(before))
        assert caught.value.code == f"job_{status}"
        assert await driver.get(before) == before
        assert await driver.store.lines(before.id) == lines
        return
    transition = TRANSITIONS[action]
    moved = await driver.store.move(before, action, {"note": "n"}, attempt=attempt_on(before), stop_reason="why")
    after = await driver.get(before)
    *earlier, last = await driver.store.lines(before.id)
    assert moved is not None
    assert (after.status, after.stop_reason) == (transition.target, "why")
    assert earlier == lines
    assert (last.id, last.type) == (moved.entry_id, transition.event)
    assert (last.attempt, last.data) == (before.attempts, {"status": transition.target, "note": "n"})
    assert (after.token, after.worker, after.since_ms) == ("", None, None)


@pytest.mark.parametrize("status", STATUSES)
async def test_a_ticket_makes_an_attempt_of_a_queued_job_only(driver: Driver, status: Status) -> None:
    before = await driver.into(status)
    await push_raw(driver, before)
    claims = await driver.claim(10)
    if allowed(status, "claim"):
        (claim,) = claims
        assert claim.job == await driver.get(before)
        assert claim.job is not None
        assert (claim.job.status, claim.job.token, claim.job.attempts) == ("running", claim.token, 1)
    else:
        assert claims == []
        assert await driver.get(before) == before
    assert await driver.tickets() == 0


@pytest.mark.parametrize("action", [t.name for t in TRANSITIONS.values() if t.ends])
async def test_an_ending_is_told_once_and_carries_the_result(driver: Driver, action: str) -> None:
    source = min(TRANSITIONS[action].sources)
    job = await driver.into(source)
    data = {"output": "half", "error": {"code": "c", "message": "m"}}
    await driver.store.move(job, action, data, attempt=attempt_on(job), stop_reason="r")
    ended = await driver.get(job)
    assert (ended.output, ended.error, ended.stop_reason) == ("half", {"code": "c", "message": "m"}, "r")
    assert ended.ended_ms is not None
    assert [t for t in await driver.types(job) if t in LAST_EVENTS] == [TRANSITIONS[action].event]


@pytest.mark.parametrize("status", sorted(ENDED & TRANSITIONS["retry"].sources))
async def test_an_ended_job_is_judged_by_what_the_caller_saw(driver: Driver, status: Status) -> None:
    """Between the look and the move it may have been retried and have ended otherwise."""
    seen = await driver.into("queued")
    await driver.store.move(seen, "expire" if status == "expired" else "cancel")
    if status == "failed":
        await driver.store.move(await driver.get(seen), "retry")
        await driver.end(seen, Attempt((await driver.claim_one()).token, "default.default"), "fail")
    with pytest.raises(ConflictError):
        await driver.store.move(seen, "retry")
    assert await driver.status(seen) == status


async def test_a_retry_begins_with_a_clean_slate(driver: Driver) -> None:
    job = await driver.into("failed")
    await driver.store.move(job, "retry", {"retry": True})
    again = await driver.get(job)
    assert (again.ended_ms, again.end_id, again.stop_reason, again.output, again.lost) == (None, None, None, None, 0)
    assert (await driver.claim_one()).job_id == job.id
    assert (await driver.get(job)).attempts == 2


async def test_a_move_of_a_job_that_is_not_there_says_so(driver: Driver) -> None:
    job = await driver.submit()
    with pytest.raises(NotFoundError):
        await driver.store.move(Job("job_none", TENANT, job.spec, job.budget, "queued", 0), "cancel")
