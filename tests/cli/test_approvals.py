"""A person decides from the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from agent_core.types import Budget
from api.settings import Settings
from jobs.approvals import Request
from jobs.moves import Attempt
from jobs.queue import queue_names
from jobs.records import JobSpec
from jobs.store import JobStore
from tests.api.conftest import ADMIN, serving
from tests.cli.conftest import Cli
from tests.cli.harness import Result

ASKS = [Request("c1", "refund", {"amount": 7}), Request("c2", "ask_human", {"question": "which?"}, kind="question")]


@pytest.fixture
async def job(store: JobStore) -> str:
    """The id of a job that waits with two calls."""
    spec = JobSpec(agent="x", agent_version="v", input="go")
    made = (await store.submit("default", spec, Budget())).job
    (claim,) = await store.tickets.claim(queue_names(["default"]), ["x@v"], most=1, lease=30, worker="w")
    calls = [{"call_id": r.call_id, "tool": r.name, "input": r.input, "approval_id": r.approval_id} for r in ASKS]
    attempt = Attempt(claim.token, claim.queue)
    await store.move(made, "park", {"calls": calls}, attempt=attempt, stop_reason="approval", asks=ASKS)
    return made.id


@pytest.fixture
async def run(redis_url: str, tmp_path, monkeypatch, cli: Cli) -> AsyncIterator[object]:
    settings = Settings(redis_url=redis_url, port=0, data_dir=tmp_path, admin_key=SecretStr(ADMIN))
    async with serving(settings) as url:
        monkeypatch.setenv("NIGHTSHIFT_URL", url)
        monkeypatch.setenv("NIGHTSHIFT_API_KEY", ADMIN)

        async def words(*given: str) -> Result:
            return await asyncio.to_thread(cli, *given)

        yield words


async def test_they_are_listed_and_decided(job, run, store):
    refund, question = (request.approval_id for request in ASKS)
    listed = await run("approvals")
    assert refund in listed.out
    assert "nightshift approve ID" in listed.err
    for command in ("show", "explain"):
        shown = await run(command, job)
        assert refund in shown.out
        assert "nightshift approve ID" in shown.err
    done = await run("approve", refund, "--input", json.dumps({"amount": 5}), "--reason", "half of it")
    assert (done.status, done.out.strip()) == (0, f"{refund} approved: refund")
    assert [one["id"] for one in (await run("approvals", "--job", job, "--json")).json["data"]] == [question]
    answered = (await run("approve", question, "--answer", "blue", "--json")).json
    assert (answered["status"], answered["answer"]) == ("approved", "blue")
    assert (await store.get("default", job)).status == "queued"
    assert refund in (await run("approvals", "--status", "all")).out


async def test_a_denial_and_what_is_refused(job, run):
    refund, question = (request.approval_id for request in ASKS)
    assert (await run("deny", refund, "--reason", "too old")).out.strip() == f"{refund} denied: refund"
    again = await run("approve", refund)
    assert (again.status, "before" in again.err) == (2, True)
    assert "is no JSON" in (await run("approve", question, "--input", "{")).err
