from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jobs import keys
from jobs.link import milliseconds
from tests.api.conftest import client_of, submitted, until

JOB_FIELDS = {
    "id", "agent", "agent_version", "status", "stop_reason", "input", "output", "error", "session_id", "user",
    "priority", "tags", "metadata", "budget", "usage", "attempts", "parent_id", "created_at", "started_at", "ended_at",
    "expires_at",
}  # fmt: skip


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_a_job_is_accepted_and_can_be_read(api, echo):
    body = {
        "agent": "echo",
        "input": {"question": "why"},
        "session_id": "s1",
        "user": "u1",
        "priority": "high",
        "service": "batch",
        "run_at": at(3600),
        "expires_at": at(7200),
        "budget": {"usd": "0.250", "seconds": 30, "tokens": None},
        "tags": ["a", "b"],
        "metadata": {"order": 7},
        "concurrency": {"key": "customer-42", "limit": 2},
    }
    answer = await api.post("/v1/jobs", json=body)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert set(job) >= JOB_FIELDS
    assert job["status"] == "scheduled"
    assert job["agent_version"] == echo.version
    assert job["budget"] == {"usd": "0.25", "tokens": None, "steps": 25, "seconds": 30, "at_limit": "stop"}
    assert job["usage"]["cost_usd"] == "0"
    same = {"input", "session_id", "user", "priority", "service", "tags", "metadata", "concurrency"}
    assert {name: job[name] for name in same} == {name: body[name] for name in same}
    assert (await api.get(f"/v1/jobs/{job['id']}")).json() == job


async def test_an_agent_nobody_published_is_refused_with_the_names_there_are(api, echo):
    answer = await api.post("/v1/jobs", json={"agent": "nobody", "input": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "agent_not_found")
    assert "echo" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input": ""}, "input"),
        ({"concurrency": {"key": "", "limit": 1}}, "concurrency.key"),
        ({"concurrency": {"key": "k", "limit": 0}}, "concurrency.limit"),
        ({"concurrency": {"key": "k"}}, "concurrency.limit"),
        ({"input": 7}, "input"),
        ({"priority": "urgent"}, "priority"),
        ({"service": "batched"}, "service"),
        ({"surprise": 1}, "surprise"),
        ({"budget": {"usd": "-1"}}, "budget.usd"),
        ({"budget": {"usd": True}}, "budget.usd"),
        ({"budget": {"usd": "1e3"}}, "budget.usd"),
        ({"budget": {"steps": 1.5}}, "budget.steps"),
        ({"budget": {"steps": True}}, "budget.steps"),
        ({"budget": {"seconds": 0}}, "budget.seconds"),
        ({"run_at": "2026-01-01T00:00:00"}, "run_at"),
        ({"run_at": "2020-01-01T00:00:00Z"}, "run_at"),
        ({"run_at": 1700000000}, "run_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"run_at": "2099-01-02T00:00:00Z", "expires_at": "2099-01-01T00:00:00Z"}, "expires_at"),
        ({"tags": ["x"] * 33}, "tags"),
        ({"tags": ["x" * 65]}, "tags.0"),
        ({"metadata": []}, "metadata"),
        ({"session_id": ""}, "session_id"),
        ({"session_id": "a\x00b"}, "session_id"),
        ({"user": "u" * 129}, "user"),
        ({"output_schema": "object"}, "output_schema"),
        ({"webhook": {"url": "ftp://example.com"}}, "webhook.url"),
        ({"webhook": {"url": "https://user:secret@example.com"}}, "webhook.url"),
        ({"files": ["../../etc/passwd"]}, "files.0"),
    ],
)
async def test_a_wrong_field_is_refused_by_its_name(api, echo, change, field):
    answer = await api.post("/v1/jobs", json={"agent": "echo", "input": "x", **change})
    problem = answer.json()
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in problem["errors"]]
    assert problem["code"] == "invalid_fields"
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "string"}, '"type": "object"'),
        ({"type": "object", "properties": {"n": {"type": "strin"}}}, "properties.n"),
        ({"type": "object", "properties": {"n": {"pattern": "(a+)+$"}}}, "pattern is not accepted"),
        ({"type": "object", "properties": {"n": {"$ref": "https://example.com/schema"}}}, "$ref"),
        ({"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}, "points to nothing"),
        ({"type": "object", "description": "x" * 33_000}, "bytes"),
    ],
)
async def test_a_schema_that_no_answer_could_be_held_to_is_refused_with_the_reason(api, echo, schema, why):
    answer = await api.post("/v1/jobs", json={"agent": "echo", "input": "x", "output_schema": schema})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")
    [error] = answer.json()["errors"]
    assert error["field"] == "output_schema"
    assert why in error["message"]


async def test_files_must_exist_and_have_different_names(api, echo):
    first, second = [
        (await api.post("/v1/files", params={"name": "a.csv"}, content=text)).json()["id"] for text in (b"1", b"2")
    ]
    assert (await submitted(api, files=[first]))["files"] == [first]
    twice = await api.post("/v1/jobs", json={"agent": "echo", "input": "x", "files": [first, second]})
    assert (twice.status_code, twice.json()["code"]) == (422, "file_name_twice")
    missing = await api.post("/v1/jobs", json={"agent": "echo", "input": "x", "files": ["file_00"]})
    assert (missing.status_code, missing.json()["code"]) == (422, "file_not_found")


# ---- idempotency


async def test_the_same_key_and_body_give_the_first_answer_even_when_the_job_has_gone_on(api, echo, worker):
    headers = {"Idempotency-Key": "k1"}
    first = await api.post("/v1/jobs", json={"agent": "echo", "input": "x"}, headers=headers)
    await worker.run()
    again = await api.post("/v1/jobs", json={"input": "x", "agent": "echo"}, headers=headers)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers


async def test_the_same_key_with_another_body_or_path_is_refused(api, echo):
    headers = {"Idempotency-Key": "k1"}
    body = {"agent": "echo", "input": "x"}
    await api.post("/v1/jobs", json=body, headers=headers)
    for path, other in (("/v1/jobs", {**body, "input": "y"}), ("/v1/run", body), ("/v1/jobs/batch", {"jobs": [body]})):
        answer = await api.post(path, json=other, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_hundred_racing_submissions_with_one_key_make_one_job(api, echo):
    body = {"agent": "echo", "input": "x"}
    answers = await asyncio.gather(
        *(api.post("/v1/jobs", json=body, headers={"Idempotency-Key": "race"}) for _ in range(100))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1


async def test_what_was_accepted_is_answered_again_when_it_would_be_refused_now(api, echo, link):
    headers = {"Idempotency-Key": "k1"}
    body = {"agent": "echo", "input": "x", "run_at": at(1.0)}
    first = await api.post("/v1/jobs", json=body, headers=headers)
    assert first.status_code == 202
    while milliseconds() <= datetime.fromisoformat(body["run_at"]).timestamp() * 1000:
        await link.command("PING")
    assert (await api.post("/v1/jobs", json=body)).status_code == 422
    assert (await api.post("/v1/jobs", json=body, headers=headers)).json() == first.json()


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9"])
async def test_a_key_that_is_no_key_is_refused(api, echo, key):
    headers = [("Idempotency-Key", key.encode("latin-1"))]
    answer = await api.post("/v1/jobs", json={"agent": "echo", "input": "x"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_idempotency_key")


# ---- batch and run


async def test_a_batch_judges_each_on_its_own_and_in_order(api, echo):
    good = {"agent": "echo", "input": "x"}
    body = {"jobs": [good, {"agent": "echo"}, {"agent": "nobody", "input": "x"}, 7, {**good, "input": "last"}]}
    answer = await api.post("/v1/jobs/batch", json=body)
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert [list(item) for item in data] == [["job"], ["error"], ["error"], ["error"], ["job"]]
    assert [item["error"]["code"] for item in data[1:4]] == ["invalid_fields", "agent_not_found", "invalid_fields"]
    assert data[4]["job"]["input"] == "last"


async def test_a_batch_is_done_once_for_its_key(api, echo, link):
    body = {"jobs": [{"agent": "echo", "input": str(n)} for n in range(20)]}
    headers = {"Idempotency-Key": "b"}
    first = await api.post("/v1/jobs/batch", json=body, headers=headers)
    again = await api.post("/v1/jobs/batch", json=body, headers=headers)
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert await link.command("ZCARD", keys.all_jobs("default")) == 20


async def test_a_batch_takes_a_thousand_jobs_and_no_more(api, echo):
    job = {"agent": "echo", "input": "x"}
    answer = await api.post("/v1/jobs/batch", json={"jobs": [job] * 1000})
    assert all("job" in item for item in answer.json()["data"])
    assert (await api.post("/v1/jobs/batch", json={"jobs": [job] * 1001})).status_code == 422


async def test_run_answers_with_the_finished_job(api, echo, worker):
    pending = asyncio.create_task(api.post("/v1/run", json={"agent": "echo", "input": "x"}))
    await until(lambda: worker.store.link.command("ZCARD", keys.QUEUED))
    await worker.run("the answer")
    answer = await pending
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["output"]) == ("completed", "the answer")


async def test_a_read_can_wait_for_the_end_or_for_a_pause(api, echo, worker):
    for action, status in (("complete", "completed"), ("suspend", "paused")):
        job = await submitted(api)
        pending = asyncio.create_task(api.get(f"/v1/jobs/{job['id']}", params={"wait": 30}))
        claim = await worker.claim()
        await worker.end(claim, action)
        assert (await pending).json()["status"] == status


async def test_a_read_that_waits_in_vain_shows_the_job_as_it_is(api, echo):
    job = await submitted(api)
    assert (await api.get(f"/v1/jobs/{job['id']}", params={"wait": 0.05})).json() == job


# ---- tenants


async def test_the_same_idempotency_key_of_two_tenants_makes_two_jobs(api, echo, url):
    key = (await api.post("/v1/keys", json={"name": "b", "scopes": ["jobs:write"], "tenant": "b"})).json()["secret"]
    body, headers = {"agent": "echo", "input": "x"}, {"Idempotency-Key": "k"}
    async with client_of(url, key) as other:
        answers = [await client.post("/v1/jobs", json=body, headers=headers) for client in (api, other)]
    assert len({answer.json()["id"] for answer in answers}) == 2
