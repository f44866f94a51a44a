"""How many requests a tenant may make, over HTTP and over several processes."""

from __future__ import annotations

import asyncio
import re

import httpx2
import pytest

from api.settings import Settings
from jobs.recent import Recent
from tests.api.conftest import client_of, serving, submitted, until
from tests.api.test_events import STREAM
from tests.redis_server import RedisServer

BODY = {"agent": "echo", "input": "x"}


async def limited(api: httpx2.AsyncClient, **limits: int | None) -> None:
    """Sets limits of the tenant and returns when the process goes by them."""
    assert (await api.put("/v1/limits", json={"scope": "tenant", **limits})).status_code == 200
    hears = any(limits.values())

    async def heard() -> bool:
        return ("ratelimit" in (await api.get("/v1/limits")).headers) is hears

    await until(heard)


async def test_every_answer_of_a_limited_tenant_says_what_is_left(api, echo):
    assert "ratelimit" not in (await api.get("/v1/jobs")).headers
    await limited(api, requests_per_minute=6, burst=3)
    job = await submitted(api)
    answers = [await api.get(path) for path in ("/v1/jobs", "/v1/jobs/job_none", "/v1/jobs")]
    assert [answer.status_code for answer in answers] == [200, 404, 429]
    for answer, left in zip(answers, (1, 0, 0), strict=True):
        assert answer.headers["ratelimit-policy"] == '"requests";q=3;w=30'
        assert re.fullmatch(rf'"requests";r={left};t=([1-9]|10)', answer.headers["ratelimit"])
    problem = answers[2].json()
    assert (problem["code"], answers[2].headers["ratelimit"].partition("t=")[2]) == (
        "rate_limited",
        answers[2].headers["retry-after"],
    )
    await limited(api, requests_per_minute=None)
    answer = await api.get(f"/v1/jobs/{job['id']}")
    assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)


async def test_a_refused_request_does_nothing_and_another_tenant_notices_nothing(api, url, echo):
    await limited(api, requests_per_minute=1, burst=2)
    await submitted(api)
    await api.post("/v1/jobs", json={**BODY, "agent": "nobody"})  # what is refused for itself counts too
    refused = [
        await api.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "again"}),
        await api.post("/v1/jobs/batch", json={"jobs": [BODY]}),
        await api.post("/v1/files", params={"name": "a"}, content=b"x"),
        await api.post("/mcp", json={}),
        await api.get("/v1/jobs", headers=STREAM),
    ]
    assert [answer.status_code for answer in refused] == [429] * 5
    made = (await api.post("/v1/keys", json={"name": "b", "scopes": ["jobs:write"], "tenant": "b"})).json()
    async with client_of(url, made["secret"]) as other:
        answer = await other.post("/v1/jobs", json=BODY)
        assert (answer.status_code, "ratelimit" in answer.headers) == (202, False)
    await limited(api, requests_per_minute=None)
    assert len((await api.get("/v1/jobs")).json()["data"]) == 1
    assert (await api.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "again"})).status_code == 202


async def test_a_stream_and_a_wait_cost_one_request(api, echo, worker):
    await limited(api, requests_per_minute=1, burst=4)
    job = await submitted(api)
    waiting = asyncio.create_task(api.get(f"/v1/jobs/{job['id']}", params={"wait": 30}))
    async with api.stream("GET", f"/v1/jobs/{job['id']}/events", headers=STREAM) as stream:
        assert stream.headers["ratelimit"].startswith('"requests";r=')
        await worker.run()
        assert [line async for line in stream.aiter_lines() if line.startswith("event: job.completed")]
    assert (await waiting).json()["status"] == "completed"
    assert (await api.get("/v1/jobs")).headers["ratelimit"].startswith('"requests";r=0')
    assert (await api.get("/v1/jobs")).status_code == 429


async def test_who_is_to_end_a_flood_gets_in(api, url, echo):
    made = (await api.post("/v1/keys", json={"name": "w", "scopes": ["jobs:read", "jobs:write"]})).json()
    await limited(api, requests_per_minute=1, burst=1)
    async with client_of(url, made["secret"]) as flooding:
        assert [(await flooding.get("/v1/jobs")).status_code for _ in range(3)] == [200, 429, 429]
        assert (await flooding.get("/v1/keys")).status_code == 429  # only who may is let through uncounted
    for _ in range(3):
        assert (await api.put("/v1/kill_switch", json={"scope": "tenant", "on": False})).status_code == 200
    assert (await api.delete(f"/v1/keys/{made['id']}")).status_code == 204


async def test_two_processes_count_together(api, settings, echo):
    async with serving(settings) as elsewhere, client_of(elsewhere) as there:
        await limited(api, requests_per_minute=1, burst=10)
        await limited(there, requests_per_minute=1, burst=10)
        answers = await asyncio.gather(*(client.get("/v1/jobs") for client in (api, there) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 30


async def test_a_process_is_told_of_limits_that_change(settings, monkeypatch):
    monkeypatch.setattr("api.app.Recent", lambda: Recent(3600))
    async with serving(settings) as url, client_of(url) as api:
        for rate in (60, None, 60, None):  # whatever it forgets when its subscription begins, the last are told
            await limited(api, requests_per_minute=rate)


@pytest.fixture
def of_its_own(own_redis: RedisServer, settings: Settings) -> Settings:
    return settings.model_copy(update={"redis_url": own_redis.url})


async def test_what_cannot_be_counted_is_not_answered(of_its_own, own_redis):
    async with serving(of_its_own) as url, client_of(url) as api:
        ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accept = {"Accept": "application/json, text/event-stream"}
        await limited(api, requests_per_minute=60)
        assert (await api.post("/mcp", json=ask, headers=accept)).status_code == 200
        own_redis.kill()
        answer = await api.post("/mcp", json=ask, headers=accept)  # which needs Redis for nothing else
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
