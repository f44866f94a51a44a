"""Another tenant's things are not there: each operation of the OpenAPI that names a thing answers as for a missing one.

The operations come from the description, so that a new one is tested from its first day, or fails here.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from agent_core.types import Json
from api.app import create_app
from api.settings import Settings
from jobs import keys
from jobs.keyring import Keyring
from jobs.link import RedisLink
from memory.session import SessionMemory, SessionScope
from tests.api.conftest import Worker, client_of, serving, submitted
from tests.api.test_approvals import park

SHARED = {
    "GET /v1/agents/{name}": "every tenant sees every published agent",
    "GET /v1/agents/{name}/versions": "every tenant sees every published agent",
    "PUT /v1/mcp/{name}/accept": "MCP servers are the platform's; only an admin of the tenant `default` may accept",
}
"""Operations on what is no tenant's."""
BODIES: dict[str, Any] = {
    "POST /v1/approvals/{approval_id}/decide": {"decision": "approve"},
    "POST /v1/jobs/{job_id}/reconcile": {"stop": True},
    "PATCH /v1/webhook_endpoints/{endpoint_id}": {"enabled": False},
    "POST /v1/webhook_endpoints/{endpoint_id}/redeliver": {"since": "2026-01-01T00:00:00Z"},
    "PATCH /v1/schedules/{schedule_id}": {"cron": "@every 2h"},
}
"""What an operation wants to be told, where `{}` is not enough."""


def operations() -> list[str]:
    """Every operation with a parameter in its path."""
    paths = create_app(Settings()).openapi()["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods if "{" in path]


async def theirs(api: httpx2.AsyncClient, worker: Worker, link: RedisLink) -> dict[str, str]:
    """One thing of each kind, by the name of the parameter that asks for it."""
    (approval,) = await park(api, worker)
    endpoint = (await api.post("/v1/webhook_endpoints", json={"url": "http://93.184.216.34/hook"})).json()
    delivery = (await api.post(f"/v1/webhook_endpoints/{endpoint['id']}/test")).json()
    schedule = await api.post("/v1/schedules", json={"agent": "echo", "input": "x", "cron": "@every 1h"})
    file = await api.post("/v1/files", params={"name": "a"}, content=b"x")
    memory = await api.post("/v1/memories", json={"user": "theirs", "text": "Lives in Oslo.", "slot": "user.city"})
    job = await submitted(api)
    assert await SessionMemory(link).append(SessionScope("default", "of-theirs"), 0, [{"role": "user", "content": "x"}])
    return {
        "job_id": job["id"],
        "approval_id": approval,
        "endpoint_id": endpoint["id"],
        "delivery_id": delivery["id"],
        "schedule_id": schedule.json()["id"],
        "file_id": file.json()["id"],
        "key_id": (await api.post("/v1/keys", json={"name": "n", "scopes": ["admin"]})).json()["id"],
        "session_id": "of-theirs",
        "memory_id": memory.json()["id"],
    }


def missing(value: str) -> str:
    """A value of the same kind that nobody has."""
    return value[:-1] + ("0" if value[-1] != "0" else "1")


def plain(answer: httpx2.Response, ids: dict[str, str]) -> Json:
    """What an answer says, but for which request and which thing it is about."""
    text = answer.text.replace(answer.headers["x-request-id"], "REQUEST")
    for name, value in ids.items():
        text = text.replace(value, name)
    found: Json = json.loads(text)
    return {"status": answer.status_code, "headers": sorted(answer.headers), "body": found}


async def things(link: RedisLink) -> list[bytes]:
    """What there is in Redis, but for what is noted of each request."""
    noted = (keys.audit_log("stranger"), keys.keys_used("stranger"))
    return sorted(key for key in await link.command("KEYS", "*") if key.decode() not in noted)


@pytest.fixture
async def url(with_memory):
    async with serving(with_memory) as url:
        yield url


async def test_another_tenants_things_answer_as_missing_ones(api, url, echo, worker, link):
    there = await theirs(api, worker, link)
    absent = {name: missing(value) for name, value in there.items()}
    _, secret = await Keyring(link).create("stranger", "k", ["admin"])
    before = await things(link)
    asked = [operation for operation in operations() if operation not in SHARED]
    assert len(asked) >= 30
    async with client_of(url, secret) as stranger:
        for operation in asked:
            method, path = operation.split(" ")
            body = {"json": BODIES.get(operation, {})} if method in ("POST", "PATCH", "PUT") else {}
            foreign = await stranger.request(method, path.format(**there), **body)
            none = await stranger.request(method, path.format(**absent), **body)
            assert none.status_code == 404, f"{operation}: {none.text}; does it want a body in BODIES?"
            assert plain(foreign, there) == plain(none, absent), operation
        assert await things(link) == before
        for path in (
            "/v1/jobs",
            "/v1/approvals",
            "/v1/webhook_endpoints",
            "/v1/schedules",
            "/v1/ledger",
            "/v1/budgets",
            "/v1/memories?user=theirs",
            "/v1/memories?user=theirs&query=oslo",
        ):
            assert (await stranger.get(path)).json()["data"] == [], path
        forgotten = (await stranger.delete("/v1/memories?user=theirs&jobs=true")).json()
        assert forgotten == {"forgotten": 0, "sessions": 0, "jobs": 0, "unfinished": 0}
    for operation in asked:  # they are there: their own tenant finds each
        method, path = operation.split(" ")
        if method == "GET":
            accept = {"Accept": "application/json"}
            assert (await api.get(path.format(**there), headers=accept)).status_code == 200, operation
