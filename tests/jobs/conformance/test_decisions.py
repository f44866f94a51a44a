"""A person decides about interrupted calls: once, about each of them, in one move."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core.types import Json
from jobs import actions
from jobs.decisions import CallDecision, abandon, decide, open_decisions
from jobs.errors import ConflictError, InvalidError, NotFoundError
from jobs.records import Job
from jobs.status import ENDED
from tests.jobs.driver import TENANT, Driver, attempt_of

CALLS: list[Json] = [{"call_id": name, "tool": "pay", "input": {}} for name in ("c1", "c2")]
BOTH = [CallDecision("c1", "happened", {"receipt": 7}), CallDecision("c2", "not_happened")]


async def parked(driver: Driver, stop_reason: str = "needs_reconcile", calls: list[Json] = CALLS) -> Job:
    job, attempt = await driver.start()
    said: Json = {"content": [{"type": "text", "text": "I pay"}], "step": 1}
    await driver.store.record(job.id, attempt.token, 1, {}, [("model.completed", said)])
    data = {"stop_reason": stop_reason, "calls": calls}
    await driver.store.move(job, "park", data, attempt=attempt, stop_reason=stop_reason)
    return await driver.get(job)


async def test_a_decision_about_every_call_queues_the_job_with_a_ticket(driver: Driver) -> None:
    job = await parked(driver)
    decided = await decide(driver.store, TENANT, job.id, BOTH, "key_1")
    assert (decided.status, decided.stop_reason) == ("queued", None)
    line = (await driver.store.lines(job.id))[-1]
    assert (line.type, line.data["by"]) == ("job.resumed", "key_1")
    assert line.data["decisions"] == [
        {"call_id": "c1", "decision": "happened", "result": {"receipt": 7}},
        {"call_id": "c2", "decision": "not_happened"},
    ]
    assert (await driver.claim_one()).job_id == job.id


async def test_it_is_decided_once(driver: Driver) -> None:
    job = await parked(driver)
    await decide(driver.store, TENANT, job.id, BOTH, "key_1")
    for act in (decide(driver.store, TENANT, job.id, BOTH, "k"), abandon(driver.store, TENANT, job.id, None, "k")):
        with pytest.raises(ConflictError, match="is queued") as refused:
            await act
        assert refused.value.code == "job_queued"
    assert (await driver.types(job)).count("job.resumed") == 1


@pytest.mark.parametrize(
    ("decisions", "code"),
    [
        ([], "undecided_call"),
        (BOTH[:1], "undecided_call"),
        ([*BOTH, CallDecision("c3", "not_happened")], "unknown_call"),
        ([*BOTH, BOTH[0]], "decided_twice"),
    ],
)
async def test_decisions_must_be_one_for_each_call(driver: Driver, decisions: list[CallDecision], code: str) -> None:
    job = await parked(driver)
    with pytest.raises(InvalidError) as refused:
        await decide(driver.store, TENANT, job.id, decisions, "k")
    assert refused.value.code == code
    assert await driver.status(job) == "requires_action"


async def test_a_job_that_waits_for_an_approval_is_left_to_it(driver: Driver) -> None:
    job = await parked(driver, "approval")
    for act in (decide(driver.store, TENANT, job.id, BOTH, "k"), abandon(driver.store, TENANT, job.id, None, "k")):
        with pytest.raises(ConflictError, match="waits for approval") as refused:
            await act
        assert refused.value.code == "other_action"
    assert await driver.status(job) == "requires_action"


async def test_another_tenants_job_is_not_there(driver: Driver) -> None:
    job = await parked(driver)
    with pytest.raises(NotFoundError):
        await decide(driver.store, "other", job.id, BOTH, "k")


@pytest.mark.parametrize(("reason", "message"), [("told them", "told them"), (None, "nobody knows whether pay")])
async def test_a_job_that_is_stopped_keeps_what_was_said(driver: Driver, reason: str | None, message: str) -> None:
    job = await parked(driver)
    failed = await abandon(driver.store, TENANT, job.id, reason, "key_1")
    assert (failed.status, failed.stop_reason, failed.output) == ("failed", "needs_reconcile", "I pay")
    assert failed.error is not None
    assert failed.error["code"] == "needs_reconcile"
    assert message in failed.error["message"]
    assert (await driver.store.lines(job.id))[-1].data["by"] == "key_1"
    with pytest.raises(ConflictError):
        await abandon(driver.store, TENANT, job.id, None, "k")


async def test_what_is_cancelled_waits_for_no_decision(driver: Driver) -> None:
    job = await parked(driver)
    await actions.cancel(driver.store, TENANT, job.id)
    with pytest.raises(ConflictError, match="is cancelled"):
        await decide(driver.store, TENANT, job.id, BOTH, "k")
    assert await driver.status(job) in ENDED


async def open_of(driver: Driver, job: Job) -> list[Any]:
    return [decision["call_id"] for decision in open_decisions(await driver.store.lines(job.id))]


async def test_a_decision_is_open_until_an_attempt_has_taken_it_over(driver: Driver) -> None:
    job = await parked(driver)
    assert await open_of(driver, job) == []
    await decide(driver.store, TENANT, job.id, BOTH, "k")
    assert await open_of(driver, job) == ["c1", "c2"]
    claim = await driver.claim_one()
    taken = {"call_id": "c1", "step": 1, "name": "pay", "decision": "happened", "by": "person"}
    await driver.store.record(job.id, claim.token, 1, {}, [("tool.reconciled", taken)])
    assert await open_of(driver, job) == ["c2"]


async def test_a_decision_about_an_earlier_parking_is_none(driver: Driver) -> None:
    job = await parked(driver, calls=CALLS[1:])
    seen = (await driver.store.lines(job.id))[-1].id
    again = [CallDecision("c2", "not_happened")]
    await decide(driver.store, TENANT, job.id, again, "k")
    claim = await driver.claim_one()
    assert claim.job is not None
    taken = {"call_id": "c2", "step": 1, "name": "pay", "decision": "not_happened", "by": "person"}
    await driver.store.record(job.id, claim.token, 1, {}, [("tool.reconciled", taken)])
    data = {"stop_reason": "needs_reconcile", "calls": CALLS[1:]}
    await driver.store.move(claim.job, "park", data, attempt=attempt_of(claim), stop_reason="needs_reconcile")
    stale = {"decisions": [d.to_json() for d in again], "by": "k", "parked": seen}
    await driver.store.move(await driver.get(job), "decide", stale)
    assert await open_of(driver, job) == []
