"""Both clients against a platform: its API, its worker and the simulated model as processes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from nightshift_client import ApiError, AsyncClient, Client, UnreachableError, verify_webhook
from nightshift_client.types import (
    Approval,
    AuditEntry,
    Event,
    File,
    Forgotten,
    Job,
    LedgerRow,
    Memory,
    UsageRow,
    WebhookMessage,
)
from tests.cli.harness import Up, script
from tests.nightshift_client.script import check
from tests.receiver import Receiver

AGENT = Path(__file__).with_name("agent.py")
HELLO = script({"text": "Hello."})
KEEP = {"tool": "report", "input": {"text": "all is well"}}
REFUND = {"tool": "refund", "input": {"order": "A-1"}}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("client")
    up = Up(folder / "data", "--agents", str(AGENT), NIGHTSHIFT_WEBHOOK_ALLOW_PRIVATE="1")
    try:
        up.wait_until_up()
        yield up
    finally:
        up.close()


class Either:
    """The one client or the other, awaited alike; lists are read to their end."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        async def called(*args: Any, **kwargs: Any) -> Any:
            if isinstance(self.client, Client):
                return await asyncio.to_thread(lambda: _whole(method(*args, **kwargs)))
            found = method(*args, **kwargs)
            return [item async for item in found] if inspect.isasyncgen(found) else await found

        return called


def _whole(found: Any) -> Any:
    return list(found) if inspect.isgenerator(found) else found


@pytest.fixture(params=["async", "blocking"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def opened(kind: str, url: str, key: str | None, **options: Any) -> AsyncIterator[Either]:
    if kind == "blocking":
        with Client(url, key, **options) as client:
            yield Either(client)
    else:
        async with AsyncClient(url, key, **options) as awaiting:
            yield Either(awaiting)


@pytest.fixture
async def client(up: Up, kind: str) -> AsyncIterator[Either]:
    async with opened(kind, up.url, up.key) as client:
        yield client


class CuttingProxy:
    """Hands bytes to the API and back. The answers of the first connections are cut off after so many bytes each."""

    def __init__(self, url: str, *cuts: int) -> None:
        self._port = urlsplit(url).port
        self._cuts = list(cuts)
        self._serving: list[asyncio.Task[None]] = []
        self.connections = 0
        self.url = ""

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.append(task)
        self.connections += 1
        room = self._cuts.pop(0) if self._cuts else None
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        with closing(writer), closing(up_writer):
            forth = asyncio.create_task(self._hand(reader, up_writer, None))
            with suppress(ConnectionError):
                await self._hand(up_reader, writer, room)
            forth.cancel()
            await asyncio.gather(forth, return_exceptions=True)

    async def _hand(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, room: int | None) -> None:
        """Hands on what comes, `room` bytes of it at most."""
        while chunk := await reader.read(65536):
            writer.write(chunk if room is None else chunk[:room])
            await writer.drain()
            room = None if room is None else room - len(chunk)
            if room is not None and room <= 0:
                return


async def test_a_job_from_its_file_to_its_bill(client: Either, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(b"order,total\n" * 20_000)
    stored = await client.upload(path)
    small = await client.upload(b"x", "small.txt")
    assert (stored["name"], stored["bytes"], small["bytes"]) == ("orders.csv", path.stat().st_size, 1)
    assert b"".join(await client.download(stored["id"])) == path.read_bytes()

    text, tag = script(KEEP, {"text": "Done."}), f"bill {kind}"
    job = await client.submit("clerk", text, files=[stored["id"]], tags=[tag], user=tag, budget={"usd": "1"})
    done = await client.wait(job["id"])
    assert (done["status"], done["output"]) == ("completed", "Done.")
    assert [found["id"] for found in await client.jobs(tag=tag, status="completed")] == [job["id"]]

    events = await client.events(job["id"])
    assert (events[0]["type"], events[-1]["type"]) == ("job.queued", "job.completed")
    kept = [event for event in events if "id" in event]
    assert await client.events(job["id"], after=kept[2]["id"]) == kept[3:]

    artifacts = await client.artifacts(job["id"])
    assert b"".join(await client.download(artifacts[0]["id"])) == b"all is well"
    ledger = await client.ledger(job["id"])
    assert sum(Decimal(row["settled_usd"]) for row in ledger) == Decimal(done["usage"]["cost_usd"]) > 0
    usage = await client.usage(by="user,model", user=tag)
    assert [(row["user"], row["calls"], row["cost_usd"]) for row in usage] == [(tag, 2, done["usage"]["cost_usd"])]

    for shape, answers in [
        (File, [stored, *artifacts]),
        (Job, [job, done]),
        (Event, events),
        (LedgerRow, ledger),
        (UsageRow, usage),
        (AuditEntry, await client.audit(target=job["id"], action="submit_job")),
    ]:
        check(shape, answers)


async def test_steering_jobs(client: Either) -> None:
    first = await client.submit("clerk", HELLO, run_at="2099-01-01T00:00:00Z")
    assert (await client.wait(first["id"], timeout=0))["status"] == "scheduled"
    assert (await client.pause(first["id"]))["status"] == "paused"
    assert (await client.resume(first["id"], budget={"usd": "2"}))["budget"]["usd"] == "2"
    later = await client.submit("clerk", HELLO, run_at="2099-01-01T00:00:00Z")
    assert (await client.cancel(later["id"]))["status"] == "cancelled"
    assert (await client.retry(later["id"], budget={"steps": 7}))["budget"]["steps"] == 7
    done = await client.wait((await client.submit("clerk", HELLO))["id"])
    fork = await client.fork(done["id"], message=HELLO, tags=["fork"])
    assert (await client.wait(fork["id"]))["tags"] == ["fork"]
    assert (await client.get(fork["id"]))["status"] == "completed"


async def test_what_is_remembered_of_a_user(client: Either, kind: str) -> None:
    user = f"ada {kind}"
    oslo = await client.remember(user, "Ada lives in Oslo.", slot="user.city", idempotency_key=user)
    assert await client.remember(user, "Ada lives in Oslo.", slot="user.city", idempotency_key=user) == oslo
    tea = await client.remember(user, "Ada likes tea.", kind="episodic", importance=1.0)
    (found,) = await client.memories(user, query="Where does Ada live?", k=1, explain=True)
    listed = await client.memories(user, past=True)
    assert ([each["id"] for each in listed], found["id"]) == ([tea["id"], oslo["id"]], oslo["id"])
    check(Memory, [oslo, tea, found, *listed])
    assert await client.forget(tea["id"]) is None
    forgotten = await client.forget_user(user, jobs=True)
    assert forgotten == {"forgotten": 1, "sessions": 0, "jobs": 0, "unfinished": 0}
    check(Forgotten, [forgotten])


@pytest.mark.parametrize(("decision", "ends"), [("approve", "refunded"), ("deny", "too old")])
async def test_a_person_decides(client: Either, decision: str, ends: str) -> None:
    job = await client.submit("clerk", script(REFUND, {"text": "Done."}))
    assert (await client.wait(job["id"]))["status"] == "requires_action"
    (asked,) = await client.approvals(status="pending", job_id=job["id"])
    given = {"reason": "too old"} if decision == "deny" else {"input_sha256": asked["input_sha256"]}
    decided = await client.decide(asked["id"], decision, **given)
    check(Approval, [asked, decided])
    assert (await client.wait(job["id"]))["status"] == "completed"
    (result,) = [event for event in await client.events(job["id"]) if event["type"] == "tool.completed"]
    assert ends in str(result["data"])
    with pytest.raises(ApiError) as twice:
        await client.decide(asked["id"], decision, **given)
    assert twice.value.status == 409


async def test_a_stream_that_a_proxy_cuts_again_and_again_is_whole(up: Up, kind: str) -> None:
    turns = [{"tool": "report", "input": {"text": f"{number} \u2028"}} for number in range(3)]
    async with opened(kind, up.url, up.key) as direct:
        job = await direct.submit("clerk", script(*turns, {"text": "Done."}))
        proxy = CuttingProxy(up.url, 600, 1500, 0, 900, 700, 1300)
        async with proxy, opened(kind, proxy.url, up.key) as client:
            seen = await client.events(job["id"])
        whole = (await direct.call("GET", f"/v1/jobs/{job['id']}/events"))["data"]
    assert [event for event in seen if "id" in event] == whole
    assert proxy.connections > 6
    assert whole[-1]["type"] == "job.completed"


async def test_a_submission_whose_answer_is_lost_is_one_job(up: Up, kind: str) -> None:
    tag = f"lost {kind}"
    async with CuttingProxy(up.url, 0, 40) as proxy, opened(kind, proxy.url, up.key) as client:
        job = await client.submit("clerk", HELLO, tags=[tag])
        assert proxy.connections == 3
        assert [found["id"] for found in await client.jobs(tag=tag)] == [job["id"]]


async def test_a_platform_that_is_not_there(up: Up, kind: str) -> None:
    async with CuttingProxy(up.url) as proxy:
        nowhere = proxy.url
    async with opened(kind, nowhere, up.key, patience=0.3) as client:
        with pytest.raises(UnreachableError):
            await client.submit("clerk", HELLO)
        with pytest.raises(UnreachableError):
            await client.events("job_1")


async def test_refusals_say_what_is_wrong(up: Up, client: Either, kind: str) -> None:
    with pytest.raises(ApiError) as refused:
        await client.submit("clerk", " ", tags=[""])
    assert (refused.value.status, refused.value.code) == (422, "invalid_fields")
    assert {error["field"] for error in refused.value.errors} == {"input", "tags.0"}
    assert refused.value.request_id
    async with opened(kind, up.url, None) as nobody:
        with pytest.raises(ApiError, match="401"):
            await nobody.get("job_1")


async def test_a_webhook_that_arrives_is_known(client: Either, receiver: Receiver) -> None:
    endpoint = await client.call("POST", "/v1/webhook_endpoints", {"url": receiver.url, "events": ["job.completed"]})
    job = await client.submit("clerk", HELLO)
    assert await asyncio.to_thread(receiver.arrived.acquire, timeout=30)
    await client.call("DELETE", f"/v1/webhook_endpoints/{endpoint['id']}")
    got = receiver.take()[0]
    message = verify_webhook(got.body, got.headers, endpoint["secret"])
    check(WebhookMessage, [message])
    assert message["type"] == "job.completed"
    assert job["id"] in str(message["data"])
