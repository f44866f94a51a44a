"""A person says through the API what became of interrupted calls."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core.types import Json
from jobs.moves import Attempt
from tests.api.conftest import client_of, submitted

HAPPENED = {"call_id": "c1", "decision": "happened", "result": {"receipt": 7}}
NOT_HAPPENED = {"call_id": "c1", "decision": "not_happened"}


@pytest.fixture
async def parked(api, echo, worker) -> str:
    """The id of a job that waits for one call."""
    return await park(api, worker, "needs_reconcile")


async def park(api, worker, stop_reason: str) -> str:
    job = await submitted(api)
    claim = await worker.claim()
    waiting = [{"call_id": "c1", "tool": "pay", "input": {"amount": 3}, "key": f"{job['id']}.c1"}]
    data = {"stop_reason": stop_reason, "calls": waiting}
    attempt = Attempt(claim.token, claim.queue)
    await worker.store.move(claim.job, "park", data, attempt=attempt, stop_reason=stop_reason)
    return str(job["id"])


async def reconcile(client, job_id: str, body: Json, **request: Any) -> Any:
    return await client.post(f"/v1/jobs/{job_id}/reconcile", json=body, **request)


async def last_event(api, job_id: str) -> Json:
    event: Json = (await api.get(f"/v1/jobs/{job_id}/events")).json()["data"][-1]
    return event


@pytest.mark.parametrize("decision", [HAPPENED, NOT_HAPPENED])
async def test_a_decision_queues_the_job(api, parked, decision):
    answer = await reconcile(api, parked, {"decisions": [decision]})
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    event = await last_event(api, parked)
    assert event["type"] == "job.resumed"
    assert event["data"]["decisions"] == [decision]
    assert event["data"]["by"] == "key_bootstrap"


async def test_a_stop_fails_the_job(api, parked):
    answer = await reconcile(api, parked, {"stop": True, "reason": "told them"})
    job = answer.json()
    assert (answer.status_code, job["status"], job["stop_reason"]) == (200, "failed", "needs_reconcile")
    assert job["error"] == {"code": "needs_reconcile", "message": "told them"}


async def test_explain_names_the_calls(api, parked):
    said = (await api.get(f"/v1/jobs/{parked}/explain")).json()
    assert (said["gate"], said["stop_reason"]) == ("requires_action", "needs_reconcile")
    assert "pay" in said["detail"]
    assert said["calls"] == [{"call_id": "c1", "tool": "pay", "input": {"amount": 3}, "key": f"{parked}.c1"}]


async def test_it_is_decided_once(api, parked):
    assert (await reconcile(api, parked, {"decisions": [HAPPENED]})).status_code == 200
    for body in ({"decisions": [HAPPENED]}, {"stop": True}):
        again = await reconcile(api, parked, body)
        assert (again.status_code, again.json()["code"]) == (409, "job_queued")


async def test_the_same_idempotency_key_is_answered_with_the_first_answer(api, parked):
    headers = {"Idempotency-Key": "d"}
    first = await reconcile(api, parked, {"decisions": [HAPPENED]}, headers=headers)
    again = await reconcile(api, parked, {"decisions": [HAPPENED]}, headers=headers)
    assert (again.status_code, again.content) == (200, first.content)
    other = await reconcile(api, parked, {"decisions": [NOT_HAPPENED]}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_job_that_waits_for_an_approval_or_for_nobody_is_a_conflict(api, echo, worker):
    approval = await park(api, worker, "approval")
    refused = await reconcile(api, approval, {"decisions": [HAPPENED]})
    assert (refused.status_code, refused.json()["code"]) == (409, "other_action")
    assert "approval" in refused.json()["detail"]
    queued = await submitted(api)
    refused = await reconcile(api, queued["id"], {"stop": True})
    assert (refused.status_code, refused.json()["code"]) == (409, "job_queued")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_fields"),
        ({"decisions": []}, "invalid_fields"),
        ({"decisions": [HAPPENED], "stop": True}, "invalid_fields"),
        ({"decisions": [HAPPENED], "reason": "so"}, "invalid_fields"),
        ({"stop": False}, "invalid_fields"),
        ({"stop": 1}, "invalid_fields"),
        ({"decisions": [{"call_id": "c1", "decision": "happened"}]}, "invalid_fields"),
        ({"decisions": [{"call_id": "c1", "decision": "maybe"}]}, "invalid_fields"),
        ({"decisions": [{**NOT_HAPPENED, "result": 1}]}, "invalid_fields"),
        ({"decisions": [{"call_id": "c9", "decision": "not_happened"}]}, "unknown_call"),
        ({"decisions": [HAPPENED, NOT_HAPPENED]}, "decided_twice"),
        ({"decisions": [HAPPENED, {**NOT_HAPPENED, "call_id": "c2"}]}, "unknown_call"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(api, parked, body, code):
    answer = await reconcile(api, parked, body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert (await api.get(f"/v1/jobs/{parked}")).json()["status"] == "requires_action"


async def key_of(api, **body: Any) -> str:
    answer = await api.post("/v1/keys", json={"name": "k", **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


async def test_it_takes_the_scope_of_approvals_and_the_jobs_tenant(api, url, parked):
    without = await key_of(api, scopes=["jobs:read", "jobs:write"])
    async with client_of(url, without) as client:
        refused = await reconcile(client, parked, {"stop": True})
    assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
    assert "approvals:write" in refused.json()["detail"]
    foreign = await key_of(api, scopes=["approvals:write"], tenant="other")
    async with client_of(url, foreign) as client:
        refused = await reconcile(client, parked, {"stop": True})
    assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found")
    approver = await key_of(api, scopes=["approvals:write"])
    async with client_of(url, approver) as client:
        assert (await reconcile(client, parked, {"decisions": [HAPPENED]})).status_code == 200
    assert (await last_event(api, parked))["data"]["by"] != "key_bootstrap"
