"""Payments under SIGKILL: none is made twice, and what nobody can know waits for a person, who decides over HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from pydantic import SecretStr

from agent_core.types import Json
from api.settings import Settings
from tests.api.conftest import ADMIN, client_of, serving
from tests.integration.harness import Platform, calls, eventually, says

PAYMENTS = str(Path(__file__).with_name("payments.py"))
TOOLS = ("charge", "transfer", "pay")
KILLED_AT = ("before_intent", "after_intent", "before_tool", "after_tool", "after_result")
UNCLEAR = {"after_intent", "before_tool", "after_tool"}
"""Where a death leaves an intent without a result."""


class Bank:
    """Counts requests and payments by their keys. A request may be held `before` or `after` its payment."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: Counter[str] = Counter()
        self.payments: Counter[str] = Counter()
        self.held: Counter[str] = Counter()
        self.go_on = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = urlsplit((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
        query = dict(parse_qsl(target.query))
        answer = await self.answer(target.path, query["key"], query.get("hold", ""))
        body = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    async def answer(self, path: str, key: str, hold: str) -> Json | None:
        if path == "/books":
            return {"paid": key} if self.payments[key] else None
        self.requests[key] += 1
        first = self.requests[key] == 1
        if first and hold == "before":
            await self.hold(key)
        elif path == "/pay" or not self.payments[key]:
            self.payments[key] += 1
            if first and hold == "after":
                await self.hold(key)
        return {"paid": key}

    async def hold(self, key: str) -> None:
        """Gives no answer until the test is over: whoever asked has died meanwhile."""
        self.held[key] += 1
        await self.go_on.wait()


@pytest.fixture
async def bank() -> AsyncIterator[Bank]:
    bank = Bank()
    server = await asyncio.start_server(bank.serve, "127.0.0.1", 0)
    bank.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield bank
    bank.go_on.set()
    server.close()


@pytest.fixture
async def api(platform: Platform, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """The platform's API."""
    settings = Settings(redis_url=platform.redis.url, port=0, data_dir=tmp_path / "data", admin_key=SecretStr(ADMIN))
    async with serving(settings) as url, client_of(url) as client:
        yield client


async def waiting_call(platform: Platform, job_id: str) -> Json:
    (call,) = (await platform.lines(job_id, "job.requires_action"))[-1].data["calls"]
    assert isinstance(call, dict)
    return call


async def decide(api: httpx2.AsyncClient, job_id: str, body: Json) -> Json:
    answer = await api.post(f"/v1/jobs/{job_id}/reconcile", json=body)
    assert answer.status_code == 200, answer.text
    job: Json = answer.json()
    return job


def truth(bank: Bank, call: Json) -> Json:
    """What a person finds in the bank's books."""
    about = {"call_id": call["call_id"]}
    if bank.payments[call["key"]]:
        return {**about, "decision": "happened", "result": {"paid": call["key"]}}
    return {**about, "decision": "not_happened"}


async def test_nothing_is_paid_twice_wherever_the_worker_dies(platform: Platform, bank: Bank, api: httpx2.AsyncClient):
    await platform.start_worker(agents=PAYMENTS, pools="publishes")
    jobs: dict[str, tuple[str, str]] = {}
    victims = []
    for number, (tool, place) in enumerate((tool, place) for tool in TOOLS for place in KILLED_AT):
        pool = f"p{number}"
        job_id = await platform.submit(calls(tool, bank=bank.url), says("done"), agent="payer", pool=pool)
        jobs[job_id] = (tool, place)
        plan = f"{place}=kill@1"
        victims.append(platform.processes.start_worker(agents=PAYMENTS, pools=pool, concurrency=1, failpoints=plan))
    assert {await victim.exited(within=40) for victim in victims} == {-signal.SIGKILL}
    pools = ",".join(f"p{number}" for number in range(len(jobs)))
    await platform.start_worker(agents=PAYMENTS, pools=pools)

    unclear = {job_id for job_id, (tool, place) in jobs.items() if tool == "pay" and place in UNCLEAR}
    await platform.all_become(jobs.keys() - unclear, "completed")
    parked = await platform.all_become(unclear, "requires_action")
    assert {job.stop_reason for job in parked} == {"needs_reconcile"}
    assert max(bank.payments.values()) == 1
    for job_id in unclear:
        call = await waiting_call(platform, job_id)
        assert bank.payments[call["key"]] == (jobs[job_id][1] == "after_tool")
        await decide(api, job_id, {"decisions": [truth(bank, call)]})
    await platform.all_become(jobs, "completed")
    assert sorted(bank.payments.values()) == [1] * len(jobs)
    said = [line.data["by"] for job_id in jobs for line in await platform.lines(job_id, "tool.reconciled")]
    assert Counter(said) == {"reconcile": len(UNCLEAR), "person": len(UNCLEAR)}


@pytest.mark.parametrize("hold", ["before", "after"])
async def test_a_worker_that_dies_inside_a_payment(platform: Platform, bank: Bank, api: httpx2.AsyncClient, hold: str):
    first = await platform.start_worker(agents=PAYMENTS)
    ids = {
        tool: await platform.submit(calls(tool, bank=bank.url, hold=hold), says("done"), agent="payer")
        for tool in TOOLS
    }
    await eventually(lambda: len(bank.held) == len(TOOLS), lambda: f"three payments{platform.tails()}")
    first.kill()
    await platform.start_worker(agents=PAYMENTS)
    parked = await platform.becomes(ids["pay"], "requires_action")
    assert parked.stop_reason == "needs_reconcile"
    assert await platform.store.tickets.place(parked) is None
    await decide(api, parked.id, {"decisions": [truth(bank, await waiting_call(platform, parked.id))]})
    await platform.all_become(ids.values(), "completed")
    assert sorted(bank.payments.values()) == [1, 1, 1]
    for job_id in ids.values():
        (result,) = await platform.lines(job_id, "tool.completed")
        assert json.loads(result.data["content"]) == {"paid": f"{job_id}.{result.data['call_id']}"}


async def test_a_person_stops_a_job_and_what_it_said_is_kept(platform: Platform, bank: Bank, api: httpx2.AsyncClient):
    first = await platform.start_worker(agents=PAYMENTS)
    turn = {**calls("pay", bank=bank.url, hold="after"), "text": "I pay now."}
    job_id = await platform.submit(turn, says("done"), agent="payer")
    await eventually(lambda: bank.held, lambda: f"a payment{platform.tails()}")
    first.kill()
    await platform.start_worker(agents=PAYMENTS)
    await platform.becomes(job_id, "requires_action")
    job = await decide(api, job_id, {"stop": True, "reason": "paid by hand"})
    assert (job["status"], job["stop_reason"], job["output"]) == ("failed", "needs_reconcile", "I pay now.")
    assert job["error"]["message"] == "paid by hand"
    assert sum(bank.payments.values()) == 1


async def test_a_payment_that_ends_soon_is_recorded_when_its_worker_is_drained(platform: Platform, bank: Bank):
    worker = await platform.start_worker(agents=PAYMENTS, drain_seconds=0)
    job_id = await platform.submit(calls("pay", bank=bank.url, hold="after"), says("done"), agent="payer")
    await eventually(lambda: bank.held, lambda: f"a payment{platform.tails()}")
    worker.signal(signal.SIGTERM)
    await eventually(lambda: worker.logged("draining"), "the drain")
    bank.go_on.set()
    assert await worker.exited(within=5) == 0
    assert (await platform.types(job_id))[-2:] == ["tool.completed", "job.queued"]
    await platform.start_worker(agents=PAYMENTS)
    await platform.becomes(job_id, "completed")
    assert sum(bank.payments.values()) == 1
