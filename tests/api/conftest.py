"""The API on a free port of loopback over a real Redis, a client for it, and a worker that does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from agent_core.types import Budget, Json
from api.main import server
from api.settings import Settings
from jobs.agents import AgentCatalogue, Published
from jobs.link import RedisLink
from jobs.moves import Attempt
from jobs.queue import Claim, queue_names
from jobs.store import JobStore
from tests.memory.embedded_server import EmbeddedServer
from tests.servers import running

ADMIN = "ns_admin-key-of-the-tests"
ECHO = Published("echo", "v1", {"name": "echo", "pool": "default", "budget": Budget().to_json(), "tools": []})


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[str]:
    """The API as `serve` runs it, in this loop; its URL."""
    running = server(settings)
    task = asyncio.create_task(running.serve())
    while not running.started:
        assert not task.done(), task
        await asyncio.sleep(0.005)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.should_exit = True
        await task


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_url, port=0, data_dir=tmp_path, admin_key=SecretStr(ADMIN), max_file_mb=1)


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[EmbeddedServer]:
    """One process for all tests: keep to users of your own."""
    with running(EmbeddedServer) as server:
        yield server


@pytest.fixture
def with_memory(settings: Settings, embedded_server: EmbeddedServer) -> Settings:
    """Settings that name a Qdrant."""
    key = SecretStr(embedded_server.api_key)
    return settings.model_copy(update={"qdrant_url": embedded_server.url, "qdrant_api_key": key})


@pytest.fixture
async def url(settings: Settings) -> AsyncIterator[str]:
    async with serving(settings) as url:
        yield url


def client_of(url: str, secret: str | None = ADMIN) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return httpx2.AsyncClient(base_url=url, headers=headers, timeout=20)


@pytest.fixture
async def api(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with the bootstrap key."""
    async with client_of(url) as client:
        yield client


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def echo(link: RedisLink) -> Published:
    """An agent that a worker has published."""
    await AgentCatalogue(link).publish([ECHO])
    return ECHO


@dataclass
class Worker:
    """Claims jobs and moves them as a worker would, one call at a time."""

    store: JobStore
    writes: int = 0

    async def claim(self) -> Claim:
        (claim,) = await self.store.tickets.claim(queue_names(["default"]), ["echo@v1"], most=1, lease=30, worker="w1")
        self.writes = 0
        return claim

    def attempt(self, claim: Claim) -> Attempt:
        return Attempt(claim.token, claim.queue)

    async def record(self, claim: Claim, type_: str, data: Json, counters: Mapping[str, int] | None = None) -> None:
        self.writes += 1
        await self.store.record(claim.job_id, claim.token, self.writes, counters or {}, [(type_, data)])

    async def end(self, claim: Claim, action: str = "complete", stop_reason: str = "end_turn", **data: Any) -> None:
        job = await self.store.get(None, claim.job_id)
        attempt = self.attempt(claim)
        data = {"output": None, "error": None, **data}
        await self.store.move(job, action, data, attempt=attempt, stop_reason=stop_reason)

    async def run(self, output: str = "done") -> str:
        claim = await self.claim()
        await self.end(claim, output=output)
        return claim.job_id


@pytest.fixture
def worker(store: JobStore) -> Worker:
    return Worker(store)


async def until(probe: Callable[[], Awaitable[object]]) -> None:
    """Returns when the probe says yes; fails the test when it has not within thirty seconds."""
    async with asyncio.timeout(30):
        while True:
            if await probe():
                return
            await asyncio.sleep(0.005)


async def until_ready(client: httpx2.AsyncClient) -> None:
    """Returns when the API that the client is of would take a submission."""

    async def ready() -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return (await client.get("/readyz")).status_code == 200
        return False

    await until(ready)


async def submitted(api: httpx2.AsyncClient, **body: Any) -> Json:
    """A job that was just submitted to `echo`."""
    answer = await api.post("/v1/jobs", json={"agent": "echo", "input": "hello", **body})
    assert answer.status_code == 202, answer.text
    job: Json = answer.json()
    return job
