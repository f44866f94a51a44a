"""The platform as an MCP server, with the SDK's own client; and accepting what other MCP servers changed."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from jobs.approvals import Request
from jobs.keyring import Keyring
from jobs.mcp import McpPins, fingerprint
from tests.api.conftest import client_of, submitted

READS = ["jobs:read"]
DECIDES = ["approvals:write"]
WRITES = ["jobs:read", "jobs:write"]
ECHO = {"echo": {"description": "Says it again.", "input_schema": {"type": "object"}, "annotations": {}}}
OTHER = {**ECHO, "erase": {"description": "Erases.", "input_schema": {"type": "object"}, "annotations": {}}}


@asynccontextmanager
async def speaking(url, link, scopes, tenant="default", mode="auto"):
    """An MCP client with a key of these scopes."""
    _, secret = await Keyring(link).create(tenant, "k", scopes)
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {secret}"}, timeout=20) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def told(client, tool, **given):
    """What a tool answers, and whether it is an error."""
    result = await client.call_tool(tool, given)
    (block,) = result.content
    assert isinstance(block, TextContent)
    assert json.loads(block.text) == result.structured_content
    return result.structured_content, result.is_error


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_job_is_submitted_watched_listed_and_cancelled(url, link, echo, worker, mode):
    async with speaking(url, link, WRITES, mode=mode) as client:
        job, error = await told(client, "submit_job", agent="echo", input="hello", tags=["a"])
        assert (error, job["status"], job["tags"]) == (False, "queued", ["a"])
        other, _ = await told(client, "submit_job", agent="echo", input="hello")
        assert (await told(client, "cancel_job", job_id=other["id"]))[0]["status"] == "cancelled"
        listed, _ = await told(client, "list_jobs", tag="a")
        assert [found["id"] for found in listed["data"]] == [job["id"]]
        await worker.run("done")
        ended, _ = await told(client, "job_status", job_id=job["id"], wait=20.0)
        assert (ended["status"], ended["output"]) == ("completed", "done")


async def test_the_job_is_the_keys_own(url, link, echo, worker):
    async with speaking(url, link, WRITES) as client:
        job, _ = await told(client, "submit_job", agent="echo", input="hello")
    (key,) = await Keyring(link).list("default")
    assert (await worker.store.get(None, job["id"])).spec.submitted_by == key.id


async def test_a_key_submits_once(url, link, echo):
    async with speaking(url, link, WRITES) as client:
        first, _ = await told(client, "submit_job", agent="echo", input="hello", idempotency_key="k")
        again, _ = await told(client, "submit_job", agent="echo", input="hello", idempotency_key="k")
        other, error = await told(client, "submit_job", agent="echo", input="else", idempotency_key="k")
    assert first["id"] == again["id"]
    assert (error, other["code"]) == (True, "idempotency_key_reused")


async def test_a_key_sees_and_calls_the_tools_of_its_scopes_alone(url, link, api, echo):
    job = await submitted(api)
    async with speaking(url, link, READS) as client:
        assert sorted(tool.name for tool in (await client.list_tools()).tools) == ["job_status", "list_jobs"]
        for tool, given in (("submit_job", {"agent": "echo", "input": "x"}), ("cancel_job", {"job_id": job["id"]})):
            refusal, error = await told(client, tool, **given)
            assert (error, refusal["status"], refusal["code"]) == (True, 403, "missing_scope")
    assert (await api.get(f"/v1/jobs/{job['id']}")).json()["status"] == "queued"


async def test_another_tenants_job_is_not_there(url, link, api, echo):
    job = await submitted(api)
    async with speaking(url, link, WRITES, tenant="other") as client:
        for tool in ("job_status", "cancel_job"):
            refusal, error = await told(client, tool, job_id=job["id"])
            assert (error, refusal["status"], refusal["code"]) == (True, 404, "job_not_found")
        assert (await told(client, "list_jobs"))[0]["data"] == []


@pytest.mark.parametrize(
    ("tool", "given", "code"),
    [
        ("submit_job", {"agent": "echo", "input": "x", "colour": "red"}, "invalid_fields"),
        ("submit_job", {"agent": "nobody", "input": "x"}, "agent_not_found"),
        ("list_jobs", {"limit": 0}, "invalid_fields"),
        ("job_status", {}, "invalid_fields"),
        ("erase", {}, "not_found"),
    ],
)
async def test_a_refusal_is_the_problem_document_of_the_api(url, link, echo, tool, given, code):
    async with speaking(url, link, WRITES) as client:
        refusal, error = await told(client, tool, **given)
    assert (error, refusal["code"]) == (True, code)
    assert refusal["request_id"]


async def test_an_approval_is_decided_once_and_by_whom_the_scope_lets(url, link, api, echo, worker):
    await submitted(api)
    claim = await worker.claim()
    job = await worker.store.get(None, claim.job_id)
    asked = Request("call_1", "refund", {"amount": 7})
    await worker.store.move(job, "park", attempt=worker.attempt(claim), stop_reason="approval", asks=[asked])
    given = {"approval_id": asked.approval_id, "decision": "deny", "reason": "too old"}
    for scopes, tenant, code in ((WRITES, "default", "missing_scope"), (DECIDES, "other", "approval_not_found")):
        async with speaking(url, link, scopes, tenant) as client:
            refusal, error = await told(client, "decide_approval", **given)
            assert (error, refusal["code"]) == (True, code)
    async with speaking(url, link, DECIDES) as client:
        decided, error = await told(client, "decide_approval", **given)
        assert (error, decided["status"]) == (False, "denied")
        again, error = await told(client, "decide_approval", **{**given, "decision": "approve"})
        assert (error, again["status"]) == (True, 409)


@pytest.mark.parametrize("secret", [None, "ns_wrong"])
async def test_no_key_no_answer(url, secret):
    async with client_of(url, secret) as client:
        answer = await client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("body", "code"), [(b'{"id": 1, "id": 2}', "malformed_body"), (b"[" * 70 + b"]" * 70, "too_deep")]
)
async def test_a_body_is_read_as_strictly_as_any_other(api, body, code):
    answer = await api.post("/mcp", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, code)


# ---- what agents' MCP servers changed


async def test_changed_tools_are_shown_and_accepted(api, link):
    pins = McpPins(link)
    await pins.see("files", ECHO)
    await pins.see("files", OTHER)
    (server,) = (await api.get("/v1/mcp")).json()["data"]
    assert (server["name"], server["tools"]) == ("files", ["echo"])
    assert server["changes"] == [{"tool": "erase", "change": "new", "pinned": None, "seen": OTHER["erase"]}]
    answer = await api.put("/v1/mcp/files/accept", json={"seen": server["seen"]})
    assert answer.status_code == 200
    assert (answer.json()["tools"], answer.json()["changes"]) == (["echo", "erase"], [])
    assert await pins.pinned("files") == OTHER


async def test_what_was_not_looked_at_is_not_accepted(api, link):
    pins = McpPins(link)
    await pins.see("files", ECHO)
    answer = await api.put("/v1/mcp/files/accept", json={"seen": fingerprint(OTHER)})
    assert (answer.status_code, answer.json()["code"]) == (409, "tools_changed")
    assert await pins.pinned("files") == ECHO
    answer = await api.put("/v1/mcp/nobody/accept", json={"seen": fingerprint(ECHO)})
    assert (answer.status_code, answer.json()["code"]) == (404, "mcp_server_not_found")


async def test_only_an_admin_of_the_platform_accepts(url, link):
    await McpPins(link).see("files", ECHO)
    keys: list[tuple[str, list[Any], str]]
    keys = [("default", WRITES, "missing_scope"), ("other", ["admin"], "global_scope")]
    for tenant, scopes, code in keys:
        _, secret = await Keyring(link).create(tenant, "k", scopes)
        async with client_of(url, secret) as client:
            answer = await client.put("/v1/mcp/files/accept", json={"seen": fingerprint(ECHO)})
            assert (answer.status_code, answer.json()["code"]) == (403, code)
