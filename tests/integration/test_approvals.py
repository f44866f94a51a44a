"""People decide over HTTP, and the calls are made, or not, by worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from agent_core.entries import ApprovalDecided
from agent_core.types import Json
from api.settings import Settings
from tests.api.conftest import ADMIN, client_of, serving
from tests.integration.harness import Platform, calls, eventually, says, script

AGENTS = str(Path(__file__).with_name("approvals.py"))


@pytest.fixture
async def url(platform: Platform, tmp_path: Path) -> AsyncIterator[str]:
    await platform.start_worker(agents=AGENTS)
    settings = Settings(redis_url=platform.redis.url, port=0, data_dir=tmp_path, admin_key=SecretStr(ADMIN))
    async with serving(settings) as url:
        yield url


@pytest.fixture
async def api(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(url) as client:
        yield client


async def waiting(api: httpx2.AsyncClient, platform: Platform, *turns: Json) -> tuple[str, list[Json]]:
    """A job that waits, and its approvals in the order of its calls."""
    answer = await api.post("/v1/jobs", json={"agent": "asker", "input": script(*turns)})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    await platform.becomes(job_id, "requires_action")
    found = (await api.get("/v1/approvals", params={"job_id": job_id})).json()["data"]
    return job_id, sorted(found, key=lambda approval: str(approval["call_id"]))


async def decide(client: httpx2.AsyncClient, approval: Json, **body: Any) -> httpx2.Response:
    return await client.post(f"/v1/approvals/{approval['id']}/decide", json=body)


def use(platform: Platform, tool: str, *texts: str) -> Json:
    given = [{"tool": tool, "input": {"folder": platform.folder, "text": text}} for text in texts]
    return {"tools": given} if len(given) > 1 else given[0]


async def test_approve_deny_edit_and_answer(platform: Platform, api: httpx2.AsyncClient):
    job_id, (approval,) = await waiting(api, platform, use(platform, "wipe", "a"), use(platform, "wipe", "b"),
                                        use(platform, "wipe", "c"), calls("ask_human", question="which?"),
                                        says("done"))  # fmt: skip
    rulings = [
        {"decision": "approve", "input_sha256": approval["input_sha256"]},
        {"decision": "deny", "reason": "not b"},
        {"decision": "approve", "input": {"folder": platform.folder, "text": "d"}},
        {"decision": "approve", "answer": "blue"},
    ]
    for number, ruling in enumerate(rulings):
        answer = await decide(api, approval, **ruling)
        assert answer.status_code == 200, answer.text
        if number < 3:
            done = {approval["id"]}

            async def next_one(decided: set[str] = done) -> Json | None:
                page = (await api.get("/v1/approvals", params={"job_id": job_id, "status": "pending"})).json()
                return next((one for one in page["data"] if one["id"] not in decided), None)

            approval = await eventually(next_one, "the next approval")
    job = await platform.becomes(job_id, "completed")
    assert job.output == "done"
    assert [line.split()[1] for line in platform.trace("wipe")] == ["a", "d"]
    results = [line.data["content"] for line in await platform.lines(job_id, "tool.completed")]
    assert "not b" in results[1]
    assert results[3] == "blue"
    intents = [line.data["input"]["text"] for line in await platform.lines(job_id, "tool.requested")]
    assert intents == ["a", "d"]


async def test_what_is_refused_leaves_the_job_waiting(platform: Platform, api: httpx2.AsyncClient, url: str):
    _, (approval,) = await waiting(api, platform, use(platform, "wipe", "a"), says("done"))
    refused = await decide(api, approval, decision="approve", input_sha256="0" * 64)
    assert (refused.status_code, refused.json()["code"]) == (409, "changed")
    job_id, (own,) = await waiting(api, platform, use(platform, "spend", "much"), says("done"))
    refused = await decide(api, own, decision="approve")
    assert (refused.status_code, refused.json()["code"]) == (403, "own_job")
    foreign = await api.post("/v1/keys", json={"name": "k", "scopes": ["admin"], "tenant": "other"})
    async with client_of(url, foreign.json()["secret"]) as client:
        assert (await decide(client, approval, decision="approve")).status_code == 404
    other = await api.post("/v1/keys", json={"name": "k", "scopes": ["approvals:write"]})
    async with client_of(url, other.json()["secret"]) as client:
        assert (await decide(client, own, decision="approve")).status_code == 200
        assert (await decide(client, own, decision="deny")).status_code == 409
    await platform.becomes(job_id, "completed")
    assert (await platform.job(approval["job_id"])).status == "requires_action"
    assert platform.trace("wipe") == []


async def test_nobody_decides_in_time(platform: Platform, api: httpx2.AsyncClient):
    job_id, (approval,) = await waiting(api, platform, use(platform, "purge", "a"), says("done"))
    await platform.becomes(job_id, "completed")
    assert len(platform.trace("purge")) == 1
    late = await decide(api, approval, decision="deny")
    assert (late.status_code, late.json()["code"]) == (410, "expired")
    assert [line.data["by"] for line in await platform.lines(job_id, "approval.decided")] == ["expiry"]


async def test_whoever_decided_died_before_the_job_was_queued(platform: Platform, api: httpx2.AsyncClient):
    job_id, (approval,) = await waiting(api, platform, use(platform, "wipe", "a"), says("done"))
    found = await platform.store.approvals.get(None, approval["id"])
    ruling = ApprovalDecided(found.id, found.request.call_id, "wipe", "approve", "key_1")
    await platform.store.approvals.rule(found, "approved", ruling)
    await platform.becomes(job_id, "completed")
    assert len(platform.trace("wipe")) == 1
    assert (await platform.types(job_id)).count("job.resumed") == 1


async def test_many_who_decide_at_once_have_the_call_made_once(platform: Platform, api: httpx2.AsyncClient):
    job_id, (approval,) = await waiting(api, platform, use(platform, "wipe", "a"), says("done"))
    answers = await asyncio.gather(*(decide(api, approval, decision="approve") for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    await platform.becomes(job_id, "completed")
    assert len(platform.trace("wipe")) == 1
