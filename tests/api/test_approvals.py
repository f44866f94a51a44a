"""Calls that wait for a person, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core.types import Json
from jobs import keys
from jobs.approvals import Request
from jobs.moves import Attempt
from tests.api.conftest import client_of, submitted
from tests.api.test_reconcile import key_of

INPUT = {"order_id": "A-1042", "amount": "20.00"}


async def park(api, worker, *requests: Request) -> list[str]:
    """The ids of what a job that was just submitted asks."""
    job = await submitted(api)
    claim = await worker.claim()
    assert claim.job.id == job["id"]
    asks = requests or (Request("c1", "refund", INPUT, requester=claim.job.spec.submitted_by),)
    attempt = Attempt(claim.token, claim.queue)
    calls = [{"call_id": r.call_id, "tool": r.name, "input": r.input, "approval_id": r.approval_id} for r in asks]
    data = {"stop_reason": "approval", "calls": calls}
    await worker.store.move(claim.job, "park", data, attempt=attempt, stop_reason="approval", asks=asks)
    return [request.approval_id for request in asks]


async def get(client, approval_id: str) -> Json:
    answer = await client.get(f"/v1/approvals/{approval_id}")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def decide(client, approval_id: str, decision: str = "approve", headers: Any = None, **body: Any) -> Any:
    path = f"/v1/approvals/{approval_id}/decide"
    return await client.post(path, json={"decision": decision, **body}, headers=headers)


async def test_it_is_seen_and_decided(api, echo, worker):
    (approval_id,) = await park(api, worker)
    found = await get(api, approval_id)
    assert {**found, "status": "pending", "tool": "refund", "input": INPUT, "effect": "destructive"} == found
    assert (found["decided_by"], found["reason"], found["requester"]) == (None, None, "key_bootstrap")
    answer = await decide(api, approval_id, "deny", reason="too old", input_sha256=found["input_sha256"])
    assert answer.status_code == 200, answer.text
    assert {**answer.json(), "status": "denied", "decided_by": "key_bootstrap", "reason": "too old"} == answer.json()
    assert await get(api, approval_id) == answer.json()
    assert (await api.get(f"/v1/jobs/{found['job_id']}")).json()["status"] == "queued"
    events = (await api.get(f"/v1/jobs/{found['job_id']}/events")).json()["data"]
    assert [event["type"] for event in events][-4:] == [
        "approval.requested", "job.requires_action", "approval.decided", "job.resumed"
    ]  # fmt: skip


async def test_an_edited_input(api, echo, worker):
    (approval_id,) = await park(api, worker)
    found = (await decide(api, approval_id, input={**INPUT, "amount": "5.00"})).json()
    assert (found["input"], found["edited_input"]) == (INPUT, {**INPUT, "amount": "5.00"})


async def refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_twice_late_and_another_input(api, echo, worker, link):
    first, second, third = [(await park(api, worker))[0] for _ in range(3)]
    assert (await decide(api, first)).status_code == 200
    assert await refused(await decide(api, first, "deny")) == (409, "already_decided")
    await link.command("HSET", keys.approval(second), "expires_ms", 1)
    assert await refused(await decide(api, second)) == (410, "expired")
    assert await refused(await decide(api, third, input_sha256="0" * 64)) == (409, "changed")
    await api.post(f"/v1/jobs/{(await get(api, third))['job_id']}/cancel")
    assert await refused(await decide(api, third)) == (409, "withdrawn")


async def test_the_same_idempotency_key_is_answered_with_the_first_answer(api, echo, worker):
    (approval_id,) = await park(api, worker)
    headers = {"Idempotency-Key": "d"}
    first = await decide(api, approval_id, headers=headers)
    again = await decide(api, approval_id, headers=headers)
    assert (again.status_code, again.content) == (200, first.content)


async def test_scopes_tenants_and_ones_own_job(api, url, echo, worker):
    own = Request("c1", "refund", INPUT, requester="key_bootstrap", requester_may_decide=False)
    (approval_id,) = await park(api, worker, own)
    assert await refused(await decide(api, approval_id)) == (403, "own_job")
    async with client_of(url, await key_of(api, scopes=["jobs:read", "jobs:write"])) as client:
        assert await refused(await decide(client, approval_id)) == (403, "missing_scope")
    scopes = ["jobs:read", "approvals:write"]
    async with client_of(url, await key_of(api, scopes=scopes, tenant="other")) as client:
        assert await refused(await decide(client, approval_id)) == (404, "approval_not_found")
        assert await refused(await client.get(f"/v1/approvals/{approval_id}")) == (404, "approval_not_found")
        assert (await client.get("/v1/approvals")).json()["data"] == []
    async with client_of(url, await key_of(api, scopes=scopes)) as client:
        assert (await decide(client, approval_id)).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_fields"),
        ({"decision": "maybe"}, "invalid_fields"),
        ({"decision": "approve", "input": "x"}, "invalid_fields"),
        ({"decision": "approve", "input_sha256": "x"}, "invalid_fields"),
        ({"decision": "approve", "by": "me"}, "invalid_fields"),
        ({"decision": "deny", "reason": ""}, "invalid_fields"),
        ({"decision": "approve", "answer": "yes"}, "not_a_question"),
        ({"decision": "deny", "input": {}}, "input_without_approval"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(api, echo, worker, body, code):
    (approval_id,) = await park(api, worker)
    answer = await api.post(f"/v1/approvals/{approval_id}/decide", json=body)
    assert await refused(answer) == (422, code)
    assert (await get(api, approval_id))["status"] == "pending"


async def test_lists_and_their_filters(api, echo, worker):
    ids = [(await park(api, worker))[0] for _ in range(3)]
    await decide(api, ids[0])
    page = (await api.get("/v1/approvals", params={"limit": 2})).json()
    assert (len(page["data"]), page["has_more"]) == (2, True)
    rest = (await api.get("/v1/approvals", params={"limit": 2, "after": page["next_cursor"]})).json()
    assert {one["id"] for one in page["data"] + rest["data"]} == set(ids)
    pending = (await api.get("/v1/approvals", params={"status": "pending"})).json()["data"]
    assert {one["id"] for one in pending} == set(ids[1:])
    job_id = pending[0]["job_id"]
    assert [one["id"] for one in (await api.get(f"/v1/approvals?job_id={job_id}")).json()["data"]] == [pending[0]["id"]]
    assert (await api.get("/v1/approvals?status=open")).status_code == 422


async def test_how_many_wait_is_a_metric(api, echo, worker):
    await park(api, worker, Request("c1", "refund", INPUT), Request("c2", "refund", INPUT))
    assert "nightshift_approvals_pending 2.0" in (await api.get("/metrics")).text
