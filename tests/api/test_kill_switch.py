"""Turning the kill switch over HTTP, and what callers are told while it is on."""

from __future__ import annotations

import pytest

from tests.api.conftest import client_of, submitted

BODY = {"agent": "echo", "input": "hello"}
SCOPES = ["global", "tenant", "agent:echo"]


async def put(api, scope, on, **more):
    answer = await api.put("/v1/kill_switch", json={"scope": scope, "on": on, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_submission_is_refused_until_the_switch_is_off(api, echo, scope):
    turned = await put(api, scope, True, reason="it mails customers")
    assert (turned["scope"], turned["on"], turned["reason"]) == (scope, True, "it mails customers")
    headers = {"Idempotency-Key": "k"}
    for path, body in (("/v1/jobs", BODY), ("/v1/run", BODY)):
        answer = await api.post(path, json=body, headers=headers)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (503, "kill_switch")
        assert int(answer.headers["retry-after"]) > 2
        for told in (turned["since"], "it mails customers", f"--scope {scope}"):
            assert told in problem["detail"]
    assert (await api.get("/v1/jobs")).json()["data"] == []
    assert (await put(api, scope, False))["on"] is False
    assert (await api.post("/v1/jobs", json=BODY, headers=headers)).status_code == 202


async def test_a_fork_is_refused(api, echo, worker):
    job = await submitted(api)
    await worker.run()
    await put(api, "agent:echo", True)
    answer = await api.post(f"/v1/jobs/{job['id']}/fork", json={"step": 0})
    assert (answer.status_code, answer.json()["code"]) == (503, "kill_switch")


async def test_a_batch_that_was_refused_can_be_sent_again_with_its_key(api, echo):
    headers, body = {"Idempotency-Key": "k"}, {"jobs": [BODY, {**BODY, "agent": "nobody"}]}
    await put(api, "tenant", True)
    refused = (await api.post("/v1/jobs/batch", json=body, headers=headers)).json()["data"]
    assert [item["error"]["code"] for item in refused] == ["kill_switch", "agent_not_found"]
    await put(api, "tenant", False)
    done = (await api.post("/v1/jobs/batch", json=body, headers=headers)).json()["data"]
    assert [list(item) for item in done] == [["job"], ["error"]]
    assert (await api.post("/v1/jobs/batch", json=body, headers=headers)).json()["data"] == done


async def test_a_switch_shows_who_turned_it_on_and_what_became_of_the_calls(api, echo, worker):
    await submitted(api)
    await worker.claim()
    first = await put(api, "agent:echo", True, reason="first")
    assert await put(api, "agent:echo", True, reason="second") == first
    assert first["by"] == "key_bootstrap"
    assert first["evidence"] == {
        "calls_open": 0,
        "calls_begun_since": 0,
        "calls_refused_since": 0,
        "last_call_began_at": None,
        "last_call_ended_at": None,
    }
    second = await put(api, "global", True)
    listed = (await api.get("/v1/kill_switch")).json()
    assert listed == {"data": [first, second], "has_more": False, "next_cursor": None}
    assert await put(api, "agent:echo", False) == {**first, "on": False}
    assert (await api.get("/v1/kill_switch")).json()["data"] == [second]


async def test_turning_off_what_is_off_is_no_error(api):
    never = {"scope": "agent:nobody", "on": False, "since": None, "by": None, "reason": None, "evidence": None}
    assert await put(api, "agent:nobody", False) == never


async def test_a_job_goes_on_when_the_switch_is_off(api, echo, worker):
    job = await submitted(api)
    await put(api, "tenant", True)
    assert await worker.store.tickets.claim(["default.default"], ["echo@v1"], most=1, lease=30, worker="w") == []
    explained = (await api.get(f"/v1/jobs/{job['id']}/explain")).json()
    assert explained["gate"] == "kill_switch"
    await put(api, "tenant", False)
    assert (await worker.claim()).job_id == job["id"]


async def test_only_the_global_switch_makes_the_platform_unready(api, echo):
    await put(api, "tenant", True)
    assert (await api.get("/readyz")).status_code == 200
    await put(api, "global", True, reason="runaway")
    ready = await api.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "kill_switch")
    assert "the whole platform is on since" in ready.json()["detail"]
    assert "runaway" not in ready.json()["detail"]
    await put(api, "global", False)
    assert (await api.get("/readyz")).status_code == 200


async def test_an_agent_that_nobody_has_published_cannot_be_stopped(api, echo):
    answer = await api.put("/v1/kill_switch", json={"scope": "agent:ecko", "on": True})
    assert (answer.status_code, answer.json()["code"]) == (404, "agent_not_found")
    assert "echo" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"scope": "agent:", "on": True},
        {"scope": "user:u", "on": True},
        {"scope": "tenant", "on": 1},
        {"scope": "tenant"},
        {"on": True},
        {"scope": "tenant", "on": True, "reason": "a\nb"},
        {"scope": "tenant", "on": True, "until": "noon"},
    ],
)
async def test_a_wrong_body_is_refused_and_stops_nothing(api, body):
    assert (await api.put("/v1/kill_switch", json=body)).status_code == 422
    assert (await api.get("/v1/kill_switch")).json()["data"] == []


@pytest.fixture
async def admin_of_b(api, url):
    """A client with an admin key of another tenant."""
    key = (await api.post("/v1/keys", json={"name": "b", "scopes": ["admin"], "tenant": "b"})).json()
    async with client_of(url, key["secret"]) as client:
        yield client


async def test_a_tenant_stops_itself_alone(api, echo, admin_of_b):
    refused = await admin_of_b.put("/v1/kill_switch", json={"scope": "global", "on": True})
    assert (refused.status_code, refused.json()["code"]) == (403, "global_scope")
    assert "tenant default" in refused.json()["detail"]
    await put(admin_of_b, "tenant", True)
    await put(admin_of_b, "agent:echo", True)
    assert (await api.get("/v1/kill_switch")).json()["data"] == []
    assert (await api.post("/v1/jobs", json=BODY)).status_code == 202
    assert (await admin_of_b.post("/v1/jobs", json=BODY)).status_code == 503


async def test_a_tenant_sees_the_global_switch_without_what_it_shows_of_others(api, echo, admin_of_b):
    turned = await put(api, "global", True, reason="runaway")
    assert (await admin_of_b.get("/v1/kill_switch")).json()["data"] == [{**turned, "evidence": None}]
    refused = await admin_of_b.put("/v1/kill_switch", json={"scope": "global", "on": False})
    assert refused.status_code == 403
    assert (await admin_of_b.post("/v1/jobs", json=BODY)).status_code == 503


@pytest.mark.parametrize("scopes", [["jobs:read", "jobs:write"], ["approvals:write"]])
async def test_it_takes_an_admin(api, url, scopes):
    key = (await api.post("/v1/keys", json={"name": "b", "scopes": scopes})).json()
    async with client_of(url, key["secret"]) as client:
        assert (await client.put("/v1/kill_switch", json={"scope": "tenant", "on": True})).status_code == 403
        assert (await client.get("/v1/kill_switch")).status_code == 403
