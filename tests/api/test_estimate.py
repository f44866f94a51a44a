"""What a submission would cost: refused like the submission, and without a trace."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from agent_core.types import Budget
from jobs import keys
from jobs.agents import AgentCatalogue, Published
from jobs.estimate import Sample
from tests.api.conftest import client_of, serving

DEFINITION = {
    "name": "echo",
    "pool": "default",
    "budget": Budget().to_json(),
    "tools": [],
    "model": "claude-sonnet-5-5",
}
JOB = {"agent": "echo", "input": "hello"}


async def publish(link, **fields: Any) -> None:
    await AgentCatalogue(link).publish([Published("echo", "v1", {**DEFINITION, **fields})])


@pytest.fixture
async def echo(link) -> None:
    await publish(link)


async def test_an_estimate_says_what_it_costs_and_how_that_is_known(api, echo, link):
    texts = [json.dumps(Sample(5, cost, "end_turn")) for cost in range(1000, 20_000, 1000)]
    await link.command("RPUSH", keys.samples("default", "echo", "v1", "standard"), *texts)
    answer = await api.post("/v1/jobs/estimate", json=JOB)
    assert answer.status_code == 200
    assert answer.json() == {
        "agent": "echo",
        "agent_version": "v1",
        "input_bytes": 5,
        "worst_case_usd": "1",
        "p50_usd": "0.01",
        "p90_usd": "0.018",
        "based_on": {
            "method": "like_jobs",
            "jobs": 19,
            "agent_version": "v1",
            "input_bytes": [5, 5],
            "stopped_by_limit": 0,
            "budget": "job",
            "detail": "the budget job stops it at 1 USD; 19 jobs with 5 to 5 bytes of input say what is likely",
        },
    }


async def test_its_description_is_that_of_its_answer(api, echo):
    schemas = (await api.get("/openapi.json")).json()["components"]["schemas"]
    answer = (await api.post("/v1/jobs/estimate", json=JOB)).json()
    assert answer.keys() == schemas["EstimateView"]["properties"].keys()
    assert answer["based_on"].keys() == schemas["BasisView"]["properties"].keys()


async def test_the_files_count(api, echo):
    upload = await api.post("/v1/files?name=a.csv", content=b"x" * 2000)
    answer = await api.post("/v1/jobs/estimate", json={**JOB, "files": [upload.json()["id"]]})
    assert answer.json()["input_bytes"] == 2005


@pytest.mark.parametrize(
    "body",
    [
        {**JOB, "agent": "nobody"},
        {**JOB, "files": ["file_00"]},
        {**JOB, "input": ""},
        {**JOB, "surprise": 1},
        {**JOB, "budget": {"usd": "-1"}},
        {**JOB, "run_at": "2001-01-01T00:00:00Z"},
        {**JOB, "run_at": "2099-01-02T00:00:00Z", "expires_at": "2099-01-01T00:00:00Z"},
        {"input": "hello"},
        [],
    ],
)
async def test_it_refuses_what_a_submission_would_be_refused_for(api, echo, body):
    answers = [await api.post(path, json=body) for path in ("/v1/jobs", "/v1/jobs/estimate")]
    problems = [{**answer.json(), "request_id": None} for answer in answers]
    assert problems[0] == problems[1]
    assert answers[1].status_code == 422


async def test_two_files_of_one_name_are_refused_too(api, echo):
    ids = [(await api.post("/v1/files?name=a.csv", content=text)).json()["id"] for text in (b"1", b"2")]
    answer = await api.post("/v1/jobs/estimate", json={**JOB, "files": ids})
    assert (answer.status_code, answer.json()["code"]) == (422, "file_name_twice")


async def test_an_unknown_price_is_refused_with_how_to_set_one(api, link):
    await publish(link, model="nobodys-model")
    answer = await api.post("/v1/jobs/estimate", json=JOB)
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_price")
    assert "NIGHTSHIFT_PRICES" in answer.json()["detail"]


async def test_a_price_of_the_operators_own_is_known(settings, link, tmp_path):
    await publish(link, model="our-own")
    prices = tmp_path / "prices.json"
    prices.write_text('{"our-own": {"input": 3, "output": 15}}')
    async with serving(settings.model_copy(update={"prices": prices})) as url, client_of(url) as api:
        answer = await api.post("/v1/jobs/estimate", json={**JOB, "budget": {"usd": None, "tokens": 1000}})
    assert answer.json()["worst_case_usd"] == "0.02318"  # 1,000 tokens and the provider's 1,024 of input, 10 % dearer


async def test_it_leaves_no_trace(api, echo, redis_url):
    def everything() -> dict[bytes, bytes]:
        with redis.Redis.from_url(redis_url) as client:
            return {key: client.dump(key) for key in client.scan_iter() if key.decode() != keys.PROBE}

    body = {**JOB, "session_id": "s1", "user": "u1", "run_at": "2099-01-01T00:00:00Z"}
    before = everything()
    for _ in range(2):
        assert (await api.post("/v1/jobs/estimate", json=body, headers={"Idempotency-Key": "k"})).status_code == 200
    assert everything() == before
    submitted = await api.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    assert submitted.status_code == 202
    assert everything() != before


async def test_an_idempotency_key_that_a_submission_could_not_have_is_refused(api, echo):
    answer = await api.post("/v1/jobs/estimate", json=JOB, headers={"Idempotency-Key": "x" * 256})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_idempotency_key")


@pytest.mark.parametrize(("scope", "status"), [("jobs:read", 200), ("jobs:write", 403)])
async def test_it_needs_to_read_jobs(api, url, echo, scope, status):
    made = await api.post("/v1/keys", json={"name": "k", "scopes": [scope]})
    async with client_of(url, made.json()["secret"]) as client:
        assert (await client.post("/v1/jobs/estimate", json=JOB)).status_code == status
