"""What a parked job asks is written with the move that parks it, decided once, and withdrawn when the job leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_core.entries import ApprovalDecided
from agent_core.types import Json
from jobs import actions
from jobs.approvals import Approval, Request, sha256_of
from jobs.errors import ConflictError, ForbiddenError, GoneError, InvalidError, JobsError, NotFoundError
from jobs.records import Job
from jobs.rulings import Ruling, decide, expire, go_on
from tests.jobs.driver import TENANT, Driver, attempt_of

APPROVE, DENY = Ruling("approve"), Ruling("deny", reason="too much")
ENDED_TERM = 0.001


def request(call_id: str = "c1", **terms: Any) -> Request:
    return Request(call_id, "refund", {"amount": 7}, **terms)


async def parked(driver: Driver, *asks: Request) -> Job:
    job, attempt = await driver.start()
    asked = asks or (request(),)
    calls = [{"call_id": one.call_id, "approval_id": one.approval_id} for one in asked]
    await driver.store.move(job, "park", {"calls": calls}, attempt=attempt, stop_reason="approval", asks=asked)
    return await driver.get(job)


async def only(driver: Driver, job: Job) -> Approval:
    (found,) = await driver.store.approvals.of_job(job.id)
    return await driver.store.approvals.get(TENANT, found)


async def decided(driver: Driver, approval_id: str, ruling: Ruling = APPROVE, by: str = "key_1") -> Approval:
    return await decide(driver.store, TENANT, approval_id, ruling, by)


async def lines(driver: Driver, job: Job, type_: str) -> list[Json]:
    return [line.data for line in await driver.store.lines(job.id) if line.type == type_]


async def over(driver: Driver, approval_id: str) -> None:
    """Returns when the approval has expired by the store's clock."""
    async with asyncio.timeout(10):
        while approval_id not in (await driver.store.approvals.due(99, 0)).expired:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_job_is_parked_with_what_it_asks(driver: Driver) -> None:
    job = await parked(driver, request(expires_in=60, policy_version="p1", requester="key_9"))
    found = await only(driver, job)
    assert (found.status, found.job_id, found.tenant) == ("pending", job.id, TENANT)
    assert (found.request.input, found.input_sha256) == ({"amount": 7}, sha256_of({"amount": 7}))
    assert found.expires_ms == found.requested_ms + 60_000
    (said,) = await lines(driver, job, "approval.requested")
    assert (said["approval_id"], said["name"], said["policy_version"]) == (found.id, "refund", "p1")
    assert (await driver.types(job))[-2:] == ["approval.requested", "job.requires_action"]
    assert await driver.store.approvals.pending() == 1


@pytest.mark.parametrize(
    ("ruling", "status", "data"),
    [
        (APPROVE, "approved", {"decision": "approve", "reason": None, "input": None}),
        (DENY, "denied", {"decision": "deny", "reason": "too much", "input": None}),
        (Ruling("approve", input={"amount": 5}), "approved", {"decision": "approve", "input": {"amount": 5}}),
        (Ruling("approve", input={"amount": 7}), "approved", {"decision": "approve", "input": None}),
        (Ruling("approve", input_sha256=sha256_of({"amount": 7})), "approved", {"decision": "approve"}),
    ],
)
async def test_a_decision_is_written_down_and_the_job_goes_on(
    driver: Driver, ruling: Ruling, status: str, data: Json
) -> None:
    job = await parked(driver)
    found = await decided(driver, (await only(driver, job)).id, ruling)
    assert (found.status, found.to_json()["decided_by"]) == (status, "key_1")
    (said,) = await lines(driver, job, "approval.decided")
    assert {**said, **data} == said
    assert (said["call_id"], said["by"]) == ("c1", "key_1")
    assert await driver.status(job) == "queued"
    assert (await driver.claim_one()).job_id == job.id
    assert await driver.store.approvals.pending() == 0


async def test_the_job_goes_on_with_the_last_decision(driver: Driver) -> None:
    job = await parked(driver, request("c1"), request("c2"), request("c3"))
    first, second, third = await driver.store.approvals.of_job(job.id)
    await decided(driver, second)
    await decided(driver, first, DENY)
    assert await driver.status(job) == "requires_action"
    assert await driver.tickets() == 0
    await decided(driver, third)
    assert await driver.status(job) == "queued"
    assert (await driver.types(job)).count("job.resumed") == 1


async def test_nothing_else_lets_it_go_on(driver: Driver) -> None:
    job = await parked(driver)
    with pytest.raises(ConflictError) as refused:
        await driver.store.move(job, "decide")
    assert refused.value.code == "undecided"
    await go_on(driver.store, job.id)
    assert await driver.status(job) == "requires_action"
    assert (await only(driver, job)).status == "pending"


async def refusal(driver: Driver, approval_id: str, ruling: Ruling = APPROVE, by: str = "key_1") -> JobsError:
    with pytest.raises(JobsError) as refused:
        await decided(driver, approval_id, ruling, by)
    return refused.value


async def test_it_is_decided_once(driver: Driver) -> None:
    job = await parked(driver)
    approval_id = (await only(driver, job)).id
    await decided(driver, approval_id, DENY)
    for ruling in (APPROVE, DENY):
        refused = await refusal(driver, approval_id, ruling)
        assert (type(refused), refused.code) == (ConflictError, "already_decided")
    assert len(await lines(driver, job, "approval.decided")) == 1
    assert (await only(driver, job)).status == "denied"


async def test_who_is_late_is_told_so_whether_or_not_the_default_was_taken(driver: Driver) -> None:
    job = await parked(driver, request(expires_in=ENDED_TERM))
    approval_id = (await only(driver, job)).id
    await over(driver, approval_id)
    assert isinstance(await refusal(driver, approval_id), GoneError)
    assert await driver.status(job) == "requires_action"
    assert await expire(driver.store, approval_id)
    assert isinstance(await refusal(driver, approval_id), GoneError)


@pytest.mark.parametrize("default", ["deny", "approve"])
async def test_the_default_decides_when_nobody_did(driver: Driver, default: Any) -> None:
    asks = [request(expires_in=ENDED_TERM, on_expiry=default), request("c2", expires_in=3600)]
    job = await parked(driver, *asks)
    expired, waiting = (one.approval_id for one in asks)
    await over(driver, expired)
    assert not await expire(driver.store, waiting)
    assert await expire(driver.store, expired)
    assert not await expire(driver.store, expired)
    assert (await driver.store.approvals.get(TENANT, expired)).status == "expired"
    (said,) = await lines(driver, job, "approval.decided")
    assert (said["decision"], said["by"]) == (default, "expiry")
    assert await driver.status(job) == "requires_action"
    await decided(driver, waiting)
    assert await driver.status(job) == "queued"


async def test_who_saw_another_input_is_refused(driver: Driver) -> None:
    job = await parked(driver)
    approval_id = (await only(driver, job)).id
    refused = await refusal(driver, approval_id, Ruling("approve", input_sha256=sha256_of({"amount": 8})))
    assert (type(refused), refused.code) == (ConflictError, "changed")
    assert await driver.status(job) == "requires_action"


async def test_the_requester_may_be_barred(driver: Driver) -> None:
    job = await parked(driver, request(requester="key_1", requester_may_decide=False))
    approval_id = (await only(driver, job)).id
    refused = await refusal(driver, approval_id)
    assert (type(refused), refused.code) == (ForbiddenError, "own_job")
    await decided(driver, approval_id, by="key_2")
    await driver.claim_one()
    own = await parked(driver, request(requester="key_1"))
    await decided(driver, (await only(driver, own)).id)


async def test_another_tenants_is_not_there(driver: Driver) -> None:
    job = await parked(driver)
    approval_id = (await only(driver, job)).id
    with pytest.raises(NotFoundError):
        await driver.store.approvals.get("other", approval_id)
    with pytest.raises(NotFoundError):
        await decide(driver.store, "other", approval_id, APPROVE, "key_1")
    with pytest.raises(NotFoundError):
        await decided(driver, "appr_1")
    assert not await expire(driver.store, "appr_1")


QUESTION: Json = {"kind": "question", "effect": "read"}


@pytest.mark.parametrize(
    ("terms", "given", "ruling", "code"),
    [
        ({}, {}, Ruling("approve", answer="x"), "not_a_question"),
        ({}, {}, Ruling("deny", input={"amount": 1}), "input_without_approval"),
        (QUESTION, {}, Ruling("approve"), "answer_needed"),
        (QUESTION, {}, Ruling("deny", answer="x"), "answer_needed"),
        (QUESTION, {}, Ruling("approve", input={}, answer="x"), "not_a_call"),
        (QUESTION, {"choices": ["a", "b"]}, Ruling("approve", answer="c"), "not_a_choice"),
    ],
)
async def test_decisions_that_are_none(driver: Driver, terms: Json, given: Json, ruling: Ruling, code: str) -> None:
    job = await parked(driver, Request("c1", "x", given, **terms))
    refused = await refusal(driver, (await only(driver, job)).id, ruling)
    assert (type(refused), refused.code) == (InvalidError, code)
    assert (await only(driver, job)).status == "pending"


async def test_a_question_is_answered(driver: Driver) -> None:
    job = await parked(driver, Request("c1", "ask_human", {"question": "q", "choices": ["a", "b"]}, **QUESTION))
    found = await decided(driver, (await only(driver, job)).id, Ruling("approve", answer="b"))
    assert found.to_json()["answer"] == "b"
    assert (await lines(driver, job, "approval.decided"))[0]["answer"] == "b"


@pytest.mark.parametrize("leave", ["cancel", "expire", "abandon"])
async def test_a_job_that_ends_withdraws_what_it_asked(driver: Driver, leave: str) -> None:
    job = await parked(driver, request("c1"), request("c2"))
    first, second = await driver.store.approvals.of_job(job.id)
    await decided(driver, first)
    await driver.store.move(job, leave, stop_reason="cancelled")
    assert (await driver.store.approvals.get(TENANT, first)).status == "approved"
    assert (await driver.store.approvals.get(TENANT, second)).status == "withdrawn"
    refused = await refusal(driver, second)
    assert (type(refused), refused.code) == (ConflictError, "withdrawn")
    assert await driver.store.approvals.pending() == 0


async def test_a_retry_asks_anew(driver: Driver) -> None:
    job = await parked(driver)
    old = (await only(driver, job)).id
    await actions.cancel(driver.store, TENANT, job.id)
    await actions.retry(driver.store, TENANT, job.id)
    claim = await driver.claim_one()
    asks = [request()]
    await driver.store.move(job, "park", attempt=attempt_of(claim), stop_reason="approval", asks=asks)
    assert isinstance(await refusal(driver, old), ConflictError)
    await decided(driver, asks[0].approval_id)
    assert await driver.status(job) == "queued"


async def test_a_job_that_nobody_let_go_on_after_the_last_decision_is_found(driver: Driver) -> None:
    """Who decided died before the job was queued."""
    job = await parked(driver)
    found = await only(driver, job)
    entry = (await driver.store.approvals.get(TENANT, found.id)).request
    ruling = ApprovalDecided(found.id, entry.call_id, entry.name, "approve", "key_1")
    await driver.store.approvals.rule(found, "approved", ruling)
    assert (await driver.store.approvals.due(9, 60_000)).decided == []
    assert (await driver.store.approvals.due(9, 0)).decided == [job.id]
    await asyncio.gather(*(go_on(driver.store, job.id) for _ in range(5)))
    assert (await driver.types(job)).count("job.resumed") == 1
    assert (await driver.store.approvals.due(9, 0)).decided == []


async def test_of_many_who_decide_at_once_one_does(driver: Driver) -> None:
    job = await parked(driver, request("c1"), request("c2"))
    ids = await driver.store.approvals.of_job(job.id)

    async def attempt(number: int) -> bool:
        ruling = APPROVE if number % 3 else DENY
        try:
            await decided(driver, ids[number % 2], ruling, by=f"key_{number}")
        except ConflictError:
            return False
        return True

    won = await asyncio.gather(*map(attempt, range(20)))
    assert sum(won) == 2
    assert len(await lines(driver, job, "approval.decided")) == 2
    assert (await driver.types(job)).count("job.resumed") == 1
    assert await driver.tickets() == 1
