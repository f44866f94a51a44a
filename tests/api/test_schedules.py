"""Schedules over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from agent_core.types import Json
from jobs import keys
from jobs.agents import Published
from jobs.link import RedisLink
from jobs.schedules import Schedules, ScheduleSpec
from tests.api.conftest import Worker, client_of
from worker.scheduler import Scheduler

BODY = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "agent": "echo", "input": "at {{ scheduled_at }}"}


async def made(api: httpx2.AsyncClient, **fields: Any) -> Json:
    answer = await api.post("/v1/schedules", json={**BODY, **fields})
    assert answer.status_code == 201, answer.text
    schedule: Json = answer.json()
    assert answer.headers["Location"] == f"/v1/schedules/{schedule['id']}"
    return schedule


async def test_the_life_of_a_schedule(api: httpx2.AsyncClient, echo: Published) -> None:
    schedule = await made(api, name="nightly", budget={"usd": "0.50"}, tags=["a"])
    path = f"/v1/schedules/{schedule['id']}"
    assert schedule["id"].startswith("sched_")
    assert (schedule["state"], schedule["overlap"], schedule["catch_up"], schedule["runs"]) == (
        "active",
        "skip",
        "last",
        0,
    )
    assert (schedule["name"], schedule["agent"], schedule["budget"]) == ("nightly", "echo", {"usd": "0.5"})
    assert len(schedule["next_runs"]) == 10
    assert (await api.get(path)).json() == schedule
    assert (await api.get("/v1/schedules")).json() == {"data": [schedule], "has_more": False, "next_cursor": None}
    paused = (await api.post(f"{path}/pause")).json()
    assert (paused["state"], paused["next_runs"]) == ("paused", [])
    assert (await api.post(f"{path}/pause")).status_code == 200
    assert (await api.post(f"{path}/resume", json={})).json()["state"] == "active"
    changed = (await api.patch(path, json={"cron": "@every 1h", "tags": ["b"], "name": None})).json()
    assert (changed["cron"], changed["tags"], changed["name"], changed["input"]) == (
        "@every 1h",
        ["b"],
        None,
        BODY["input"],
    )
    assert changed["timezone"] == "Europe/Berlin"
    assert (await api.delete(path)).status_code == 204
    gone = await api.get(path)
    assert (gone.status_code, gone.json()["code"]) == (404, "schedule_not_found")
    assert (await api.get("/v1/schedules")).json()["data"] == []


async def test_a_dry_run_saves_nothing(api: httpx2.AsyncClient, echo: Published) -> None:
    answer = await api.post("/v1/schedules?dry_run=true", json={**BODY, "max_runs": 3})
    shown = answer.json()
    assert (answer.status_code, shown["id"], shown["created_at"], len(shown["next_runs"])) == (200, None, None, 3)
    assert (await api.get("/v1/schedules")).json()["data"] == []


async def test_a_trigger_answers_with_the_job(api: httpx2.AsyncClient, echo: Published, worker: Worker) -> None:
    schedule = await made(api)
    headers = {"Idempotency-Key": "k"}
    answer = await api.post(f"/v1/schedules/{schedule['id']}/trigger", headers=headers)
    job = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/jobs/{job['id']}")
    again = await api.post(f"/v1/schedules/{schedule['id']}/trigger", headers=headers)
    assert again.json() == job
    assert await worker.run() == job["id"]
    runs = (await api.get(f"/v1/schedules/{schedule['id']}/runs")).json()
    (row,) = runs["data"]
    assert (row["outcome"], row["reason"], row["job_id"]) == ("fired", "triggered", job["id"])
    assert job["input"] == f"at {row['scheduled_at']}"
    assert job["metadata"] == {"schedule_id": schedule["id"], "scheduled_at": row["scheduled_at"]}


async def test_a_trigger_of_an_agent_that_is_gone_is_refused(
    api: httpx2.AsyncClient, echo: Published, link: RedisLink
) -> None:
    schedule = await made(api)
    await link.command("HDEL", keys.AGENTS, "echo")
    answer = await api.post(f"/v1/schedules/{schedule['id']}/trigger")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_submitted")
    assert "agent_not_found" in answer.json()["detail"]


async def test_runs_and_the_metric(api: httpx2.AsyncClient, echo: Published, link: RedisLink) -> None:
    schedule = await made(api, cron="@every 1h", overlap="allow", catch_up="all")
    begin = await Schedules(link).now() - 3 * 3_600_000
    await link.command("HSET", keys.schedule(schedule["id"]), "created_ms", begin, "cursor_ms", begin)
    await Scheduler(link).sweep()
    first = (await api.get(f"/v1/schedules/{schedule['id']}/runs?limit=2")).json()
    assert [row["outcome"] for row in first["data"]] == ["fired", "caught_up"]
    rest = (await api.get(f"/v1/schedules/{schedule['id']}/runs", params={"after": first["next_cursor"]})).json()
    assert ([row["reason"] for row in rest["data"]], rest["has_more"]) == (["missed"], False)
    metrics = (await api.get("/metrics")).text
    assert 'nightshift_schedule_slots_total{outcome="caught_up"} 2.0' in metrics


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"cron": "61 * * * *"}, "invalid_cron"),
        ({"cron": None}, "invalid_fields"),
        ({"timezone": "Mars/Olympus"}, "invalid_timezone"),
        ({"timezone": "../../etc/passwd"}, "invalid_timezone"),
        ({"input": "{{ secret }}"}, "invalid_template"),
        ({"agent": "nobody"}, "agent_not_found"),
        ({"cron": "@every 1m", "jitter": 61}, "invalid_jitter"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "invalid_fields"),
        ({"overlap": "maybe"}, "invalid_fields"),
        ({"concurrency": 0}, "invalid_fields"),
        ({"max_runs": 0}, "invalid_fields"),
        ({"catch_up_window": 1}, "invalid_fields"),
        ({"jitter": -1}, "invalid_fields"),
        ({"files": []}, "invalid_fields"),
        ({"webhook": {"url": "http://169.254.169.254/"}}, "forbidden_target"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_refused_when_it_is_made_or_changed(
    api: httpx2.AsyncClient, echo: Published, fields: Json, code: str
) -> None:
    answer = await api.post("/v1/schedules", json={**BODY, **fields})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert (await api.get("/v1/schedules")).json()["data"] == []
    schedule = await made(api)
    answer = await api.patch(f"/v1/schedules/{schedule['id']}", json=fields)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert (await api.get(f"/v1/schedules/{schedule['id']}")).json() == schedule


async def test_what_is_declared_is_not_changed_here(api: httpx2.AsyncClient, echo: Published, link: RedisLink) -> None:
    job = {"agent": "echo", "input": "x", "tags": [], "metadata": {}}
    await Schedules(link).declare("default", ScheduleSpec("0 0 * * *", job, name="n"))
    (declared,) = (await api.get("/v1/schedules")).json()["data"]
    assert declared["declared"] is True
    answer = await api.patch(f"/v1/schedules/{declared['id']}", json={"cron": "@every 1h"})
    assert (answer.status_code, answer.json()["code"]) == (409, "schedule_declared")


@pytest.mark.parametrize("scopes", [["jobs:read"], ["jobs:write"], ["schedules:write"]])
async def test_scopes(api: httpx2.AsyncClient, url: str, echo: Published, scopes: list[str]) -> None:
    schedule = await made(api)
    key = (await api.post("/v1/keys", json={"name": "k", "scopes": scopes})).json()["secret"]
    path = f"/v1/schedules/{schedule['id']}"
    async with client_of(url, key) as client:
        reads = [await client.get(where) for where in ("/v1/schedules", path, f"{path}/runs")]
        writes = [await client.post(f"{path}/{action}") for action in ("pause", "resume", "trigger")]
        writes += [await client.patch(path, json={}), await client.post("/v1/schedules", json=BODY)]
        writes += [await client.delete(path)]
    assert {answer.status_code == 403 for answer in reads} == {"jobs:read" not in scopes}
    assert {answer.status_code == 403 for answer in writes} == {"schedules:write" not in scopes}


async def test_of_another_tenant_nothing_is_there(api: httpx2.AsyncClient, url: str, echo: Published) -> None:
    schedule = await made(api)
    key = {"name": "k", "scopes": ["admin"], "tenant": "other"}
    secret = (await api.post("/v1/keys", json=key)).json()["secret"]
    missing = "sched_" + "0" * 32
    async with client_of(url, secret) as client:
        assert (await client.get("/v1/schedules")).json()["data"] == []
        for method, rest in [
            ("GET", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("GET", "/runs"),
            ("POST", "/trigger"),
            ("POST", "/pause"),
            ("POST", "/resume"),
        ]:
            body: Json | None = {} if method in ("PATCH", "POST") else None
            foreign = await client.request(method, f"/v1/schedules/{schedule['id']}{rest}", json=body)
            absent = await client.request(method, f"/v1/schedules/{missing}{rest}", json=body)
            assert foreign.status_code == absent.status_code == 404
            assert foreign.json()["code"] == absent.json()["code"]
            assert foreign.json()["detail"] == absent.json()["detail"].replace(missing, schedule["id"])
