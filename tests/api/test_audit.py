"""The audit log: one entry for each change and each attempt at one, in the tenant's own log, without bodies."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
from structlog.testing import capture_logs

from agent_core.types import Json
from api.app import create_app
from api.settings import Settings
from jobs import keys
from jobs.link import milliseconds
from jobs.records import rfc3339
from tests.api.conftest import ADMIN, client_of, serving, submitted, until
from tests.api.test_isolation import BODIES, theirs

BODY = {"agent": "echo", "input": "a secret plan"}
KEY = {"name": "n", "scopes": ["jobs:read"]}


async def entries(api: httpx2.AsyncClient, **query: Any) -> list[Json]:
    """The log, the newest first."""
    answer = await api.get("/v1/audit", params={"limit": 200, **query})
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["data"]
    return found


def changes(settings: Settings) -> dict[str, str]:
    """The `operationId` of every operation that changes something."""
    paths = create_app(settings).openapi()["paths"]
    found = {
        f"{method.upper()} {path}": operation["operationId"]
        for path, methods in paths.items()
        for method, operation in methods.items()
    }
    return {name: id_ for name, id_ in found.items() if not name.startswith("GET") and id_ != "estimate_job"}


async def test_every_operation_that_changes_something_is_noted_whatever_its_answer(with_memory, echo, worker, link):
    asked = changes(with_memory)
    assert len(asked) > 30
    async with serving(with_memory) as url, client_of(url) as api, client_of(url, None) as nobody:
        ids = {**await theirs(api, worker, link), "name": "a-server"}
        reader = (await api.post("/v1/keys", json=KEY)).json()
        async with client_of(url, reader["secret"]) as reading:
            for operation, action in asked.items():
                for client, key in ((reading, reader["id"]), (nobody, None), (api, "key_bootstrap")):
                    await assert_noted(api, client, operation, ids, action=action, key_id=key)


async def assert_noted(
    api: httpx2.AsyncClient, client: httpx2.AsyncClient, operation: str, ids: dict[str, str], **fields: Any
) -> None:
    """Asks for an operation, and looks for its entry."""
    method, template = operation.split(" ")
    path = template.format(**ids)
    answer = await client.request(method, path, **{} if method == "DELETE" else {"json": BODIES.get(operation, {})})
    where = {"without_key": True} if fields["key_id"] is None else {}
    (newest,) = (await api.get("/v1/audit", params={"limit": 1, **where})).json()["data"]
    shown = {
        **fields,
        "method": method,
        "path": path,
        "status": answer.status_code,
        "request_id": answer.headers["x-request-id"],
        "address": "127.0.0.1",
    }
    assert {name: newest[name] for name in shown} == shown, (operation, answer.text)
    if "{" in template:
        last = max(number for number, part in enumerate(template.split("/")) if part.startswith("{"))
        assert newest["target"] == path.split("/")[last]


async def test_what_only_looks_is_not_noted(api, echo):
    job = await submitted(api)
    before = await entries(api)
    for path in ("/v1/jobs", f"/v1/jobs/{job['id']}", "/v1/keys", "/v1/audit", "/v1/nothing"):
        await api.get(path)
    await api.post("/v1/jobs/estimate", json=BODY)
    await api.post("/v1/nothing", json={})
    assert await entries(api) == before


async def test_what_was_made_and_which_scope_was_changed_is_named(api, echo, worker):
    key = (await api.post("/v1/keys", json=KEY)).json()
    running = asyncio.create_task(api.post("/v1/run", json=BODY))

    async def done() -> bool:
        return (await api.get("/v1/jobs")).json()["data"] != []

    await until(done)
    ran = await worker.run()
    assert (await running).status_code == 200
    job = (await api.post("/v1/jobs", json=BODY)).json()
    await api.put("/v1/limits", json={"scope": "agent:echo", "running": 3})
    await api.put("/v1/budgets", json={"scope": "user:u", "usd": "1"})
    await api.delete("/v1/budgets", params={"scope": "user:u"})
    await api.put("/v1/kill_switch", json={"scope": "agent:echo", "on": False})
    assert [(entry["action"], entry["target"]) for entry in reversed(await entries(api))] == [
        ("create_key", key["id"]),
        ("run_job", ran),
        ("submit_job", job["id"]),
        ("put_limits", "agent:echo"),
        ("put_budget", "user:u"),
        ("delete_budget", "user:u"),
        ("turn_kill_switch", "agent:echo"),
    ]


async def test_each_tenant_has_its_own_and_the_operator_sees_any(api, url, echo):
    made = (await api.post("/v1/keys", json={"name": "b", "scopes": ["admin"], "tenant": "b"})).json()
    async with client_of(url, made["secret"]) as other:
        await submitted(other)
        await other.put("/v1/limits", json={"scope": "tenant", "running": 1, "tenant": "default"})
        theirs = [(entry["action"], entry["key_id"], entry["status"]) for entry in await entries(other)]
        assert theirs == [
            ("put_limits", made["id"], 403),
            ("submit_job", made["id"], 202),
            ("create_key", "key_bootstrap", 201),
        ]
        assert await entries(api, tenant="b") == await entries(other)
        for query in ({"tenant": "default"}, {"without_key": True}):
            answer = await other.get("/v1/audit", params=query)
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign_tenant")
    assert await entries(api) == []
    reader = (await api.post("/v1/keys", json=KEY)).json()
    async with client_of(url, reader["secret"]) as reading:
        assert (await reading.get("/v1/audit")).json()["code"] == "missing_scope"


async def test_neither_bodies_nor_secrets_are_in_it(api, url, echo, link):
    key = (await api.post("/v1/keys", json={**KEY, "scopes": ["jobs:write"]})).json()
    async with client_of(url, key["secret"]) as client:
        await client.post("/v1/jobs", json={**BODY, "metadata": {"note": "a secret plan"}})
        await client.post("/v1/files", params={"name": "secret-plan"}, content=b"a secret plan")
    for secret in (key["secret"], ADMIN):
        assert (await api.delete(f"/v1/keys/{secret}")).status_code == 404
    assert len(await entries(api)) == 5
    kept = str(await link.command("XRANGE", keys.audit_log("default"), "-", "+"))
    for secret in (key["secret"], ADMIN, "secret plan", "secret-plan"):
        assert secret not in kept


async def test_a_refused_request_and_an_expired_key_are_noted_in_the_tenants_log(api, url, link, echo):
    key = (await api.post("/v1/keys", json={**KEY, "scopes": ["jobs:write"]})).json()
    await api.put("/v1/limits", json={"scope": "tenant", "requests_per_minute": 1, "burst": 1})
    async with client_of(url, key["secret"]) as client:

        async def refused() -> bool:
            return (await client.post("/v1/jobs", json=BODY)).status_code == 429

        await until(refused)
        assert (await entries(api))[0]["status"] == 429
        digest = (await link.command("HGET", keys.api_keys("default"), key["id"])).decode()
        await link.command("HSET", keys.api_key(digest), "expires_ms", milliseconds() - 1)
        await link.command("PUBLISH", keys.CHANGED, keys.api_key(digest))

        async def expired() -> bool:
            return (await client.post("/v1/jobs", json=BODY)).status_code == 401

        await until(expired)
    newest = (await entries(api))[0]
    assert (newest["key_id"], newest["status"], newest["target"]) == (key["id"], 401, None)


async def test_it_is_listed_in_pages_and_filtered(api, echo):
    for _ in range(5):
        await submitted(api)
        await api.post("/v1/keys", json=KEY)
    everything = await entries(api)
    assert [entry["action"] for entry in everything] == ["create_key", "submit_job"] * 5
    assert everything == sorted(everything, key=lambda entry: entry["created_at"], reverse=True)
    paged, query = [], {"limit": 2, "action": "submit_job"}
    while query:
        answer = (await api.get("/v1/audit", params=query)).json()
        assert len(answer["data"]) <= 2
        paged += answer["data"]
        query = {**query, "after": answer["next_cursor"]} if answer["has_more"] else {}
    assert paged == everything[1::2]
    third = everything[2]
    assert await entries(api, target=third["target"]) == [third]
    assert await entries(api, key_id="key_other") == []
    after = await entries(api, created_after=third["created_at"])
    before = await entries(api, created_before=third["created_at"])
    assert after + before == everything
    assert third in after
    assert await entries(api, created_after=rfc3339(milliseconds() + 60_000)) == []
    cursor = (await api.get("/v1/audit", params={"limit": 1})).json()["next_cursor"]
    assert await entries(api, after=cursor, created_before=third["created_at"]) == before
    made = (await api.post("/v1/keys", json={"name": "b", "scopes": ["admin"], "tenant": "b"})).json()
    assert made["tenant"] == "b"
    answer = await api.get("/v1/audit", params={"tenant": "b", "after": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")


async def test_tools_of_mcp_are_noted_like_what_they_stand_for(api, url, echo):
    async def call(client: httpx2.AsyncClient, name: str, **arguments: Any) -> None:
        ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
        accept = {"Accept": "application/json, text/event-stream"}
        assert (await client.post("/mcp", json=ask, headers=accept)).status_code == 200

    await call(api, "submit_job", **BODY)
    (entry,) = await entries(api)
    job = (await api.get("/v1/jobs")).json()["data"][0]["id"]
    assert (entry["action"], entry["path"], entry["target"], entry["status"]) == ("submit_job", "/mcp", job, 200)
    await call(api, "list_jobs")
    await call(api, "cancel_job", job_id="job_none")
    reader = (await api.post("/v1/keys", json=KEY)).json()
    async with client_of(url, reader["secret"]) as reading:
        await call(reading, "cancel_job", job_id=job)
    found = [(entry["action"], entry["target"], entry["status"]) for entry in await entries(api)]
    assert found[:3] == [("cancel_job", None, 403), ("create_key", reader["id"], 201), ("cancel_job", "job_none", 404)]
    assert len(found) == 4


async def test_a_crash_is_noted_and_an_outage_is_none_of_its_business(api, echo, link):
    job = await submitted(api)
    await link.command("HSET", keys.job(job["id"]), "spec", "not JSON")
    with capture_logs():  # to draw the traceback for a terminal takes seconds
        assert (await api.post(f"/v1/jobs/{job['id']}/cancel")).status_code == 500
    assert (await entries(api))[0]["status"] == 500
    await api.put("/v1/kill_switch", json={"scope": "tenant", "on": True})
    before = await entries(api)
    assert (await api.post("/v1/jobs", json=BODY)).status_code == 503
    assert await entries(api) == before


async def test_a_log_that_cannot_be_written_is_in_the_servers_own(settings, redis_url, link, echo, capsys):
    async with serving(settings) as url, client_of(url) as api:
        await link.command("SET", keys.audit_log("default"), "not a stream")
        answer = await api.post("/v1/jobs", json=BODY)
    assert answer.status_code == 202  # it is done
    logged = capsys.readouterr().out
    assert "not in the audit log" in logged
    assert answer.headers["x-request-id"] in logged
