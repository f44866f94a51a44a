from __future__ import annotations

import pytest

from tests.api.conftest import submitted
from tests.api.test_events import model_completed


async def acted(api, job: dict, action: str, **request) -> dict:
    answer = await api.post(f"/v1/jobs/{job['id']}/{action}", **request)
    return {"code": answer.status_code} | {k: v for k, v in answer.json().items() if k in ("status", "id")}


async def test_a_waiting_job_is_paused_resumed_cancelled_and_retried(api, echo, worker):
    job = await submitted(api)
    for action, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")):
        assert await acted(api, job, action) == {"code": 200, "status": status, "id": job["id"]}
    assert await worker.run() == job["id"]


async def test_a_running_job_is_asked(api, echo, worker):
    job = await submitted(api)
    await worker.claim()
    assert (await acted(api, job, "cancel"))["status"] == "running"
    explained = (await api.get(f"/v1/jobs/{job['id']}/explain")).json()
    assert explained["gate"] == "running"
    assert "a cancel was asked for" in explained["detail"]


@pytest.mark.parametrize("action", ["cancel", "pause", "resume", "retry"])
async def test_what_does_not_fit_the_status_is_a_conflict_that_names_it(api, echo, worker, action):
    job = await submitted(api)
    await worker.run()
    answer = await api.post(f"/v1/jobs/{job['id']}/{action}")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_completed")


async def test_a_retry_may_raise_the_budget(api, echo, worker):
    job = await submitted(api, budget={"usd": "0.10", "steps": 3})
    await worker.end(await worker.claim(), "fail", "budget_exceeded")
    answer = await api.post(f"/v1/jobs/{job['id']}/retry", json={"budget": {"usd": "0.50"}})
    assert answer.json()["budget"] == {**job["budget"], "usd": "0.5"}
    assert (await api.post(f"/v1/jobs/{job['id']}/retry", json={"budget": {"usd": -1}})).status_code == 422


async def test_a_fork_starts_from_a_step_with_changes(api, echo, worker):
    job = await submitted(api, tags=["first"])
    claim = await worker.claim()
    await worker.record(claim, "model.completed", model_completed(1), {"cost": 12_300})
    await worker.end(claim, output="line one")
    answer = await api.post(f"/v1/jobs/{job['id']}/fork", json={"step": 1, "message": "and then?", "tags": ["second"]})
    fork = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{fork['id']}"
    assert fork["forked_from"] == {"job_id": job["id"], "step": 1}
    assert (fork["tags"], fork["usage"]["cost_usd"]) == (["second"], "0")
    types = [event["type"] for event in (await api.get(f"/v1/jobs/{fork['id']}/events")).json()["data"]]
    assert types == ["job.queued", "model.completed", "user.message"]
    assert (await api.get(f"/v1/jobs/{fork['id']}/ledger")).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"step": 9}, "no_such_step"),
        ({"step": -1}, "invalid_fields"),
        ({"input": "new", "step": 1}, "invalid_request"),
        ({"step": 1}, "message_needed"),
        ({"agent": "other"}, "invalid_fields"),
        ({"run_at": "2020-01-01T00:00:00Z"}, "invalid_fields"),
    ],
)
async def test_a_fork_that_makes_no_sense_is_refused(api, echo, worker, body, code):
    job = await submitted(api)
    claim = await worker.claim()
    await worker.record(claim, "model.completed", model_completed(1))
    answer = await api.post(f"/v1/jobs/{job['id']}/fork", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_an_action_is_done_once_for_its_key(api, echo):
    job = await submitted(api)
    headers = {"Idempotency-Key": "p"}
    first = await api.post(f"/v1/jobs/{job['id']}/pause", headers=headers)
    await api.post(f"/v1/jobs/{job['id']}/resume")
    again = await api.post(f"/v1/jobs/{job['id']}/pause", headers=headers)
    assert again.content == first.content
    assert (await api.get(f"/v1/jobs/{job['id']}")).json()["status"] == "queued"
    other = await api.post(f"/v1/jobs/{job['id']}/cancel", headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_refusal_is_repeated_for_its_key_too(api, echo):
    job = await submitted(api)
    headers = {"Idempotency-Key": "r"}
    first = await api.post(f"/v1/jobs/{job['id']}/resume", headers=headers)
    await api.post(f"/v1/jobs/{job['id']}/pause")
    again = await api.post(f"/v1/jobs/{job['id']}/resume", headers=headers)
    assert (first.status_code, again.status_code) == (409, 409)
    assert again.content == first.content


async def test_a_fork_is_made_once_for_its_key(api, echo):
    job = await submitted(api)
    forks = [
        (await api.post(f"/v1/jobs/{job['id']}/fork", headers={"Idempotency-Key": "f"})).json()["id"] for _ in range(2)
    ]
    assert forks[0] == forks[1]
