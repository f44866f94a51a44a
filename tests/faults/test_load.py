"""Many watch while many submit: nobody is refused, every stream is whole, and the API keeps its size."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from jobs import keys
from tests.faults.client import KEY
from tests.faults.rig import Rig, percentile
from tests.integration.harness import eventually, script

WORKERS = 2
SAMPLE_SECONDS = 1.0
MOST_CONNECTIONS = 10
"""Of an API process to Redis, with all its readers."""
READERS_OF_ONE = 4
"""Of those that wait for a job, so many follow a new one."""
FLAT = 1.15
"""How much larger the API may be at the end of the load than after a third of it."""
HOST = "127.0.0.1"


@dataclass
class Load:
    """Submits at an even rate to one API, and has readers that follow the newest job to its end, then the next."""

    port: int
    ids: list[str] = field(default_factory=list)
    fresh: asyncio.Condition = field(default_factory=asyncio.Condition)
    took: list[float] = field(default_factory=list)
    streams: int = 0
    events: int = 0
    faults: list[str] = field(default_factory=list)
    open_streams: int = 0
    most_open: int = 0

    async def submit(self, rate: float, seconds: float, latency: float) -> None:
        """Submits `rate` jobs a second; each asks the model once, which takes `latency` seconds."""
        begun, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while (due := begun + number / rate) < begun + seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._submit(number, latency))
                number += 1

    async def _submit(self, number: int, latency: float) -> None:
        turn = {"text": "done", "latency": latency}
        body = json.dumps({"agent": "payer", "input": script(turn, key=f"load-{number}")})
        begun = time.monotonic()
        status, answer = await self._ask("POST", "/v1/jobs", body)
        self.took.append(time.monotonic() - begun)
        if status != 202:
            self.faults.append(f"submit {number}: {status} {answer[:200]}")
            return
        self.ids.append(json.loads(answer)["id"])
        async with self.fresh:
            self.fresh.notify(READERS_OF_ONE)

    async def read(self) -> None:
        """Follows jobs until it is cancelled."""
        while True:
            async with self.fresh:
                await self.fresh.wait()
            await self._follow(self.ids[-1])

    async def _follow(self, job_id: str) -> None:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(_head("GET", f"/v1/jobs/{job_id}/events", "Accept: text/event-stream"))
            if not (status := await reader.readline()).startswith(b"HTTP/1.1 200"):
                self.faults.append(f"stream of {job_id}: {status!r}")
                return
            self.open_streams += 1
            self.most_open = max(self.most_open, self.open_streams)
            await self._whole(job_id, reader)
        finally:
            writer.close()

    async def _whole(self, job_id: str, reader: asyncio.StreamReader) -> None:
        """Reads a stream to its end, and notes what is wrong with it."""
        last, kind = (0, 0), b""
        try:
            async for line in reader:
                if line.startswith(b"id: "):
                    stamp, _, number = line[4:].strip().removeprefix(b"evt_").partition(b"-")
                    if (this := (int(stamp), int(number))) <= last:
                        self.faults.append(f"stream of {job_id}: {this} after {last}")
                    last = this
                elif line.startswith(b"event: "):
                    kind = line[7:].strip()
                    self.events += 1
        finally:
            self.open_streams -= 1
        self.streams += 1
        if kind != b"job.completed":
            self.faults.append(f"stream of {job_id} ended with {kind!r}")

    async def _ask(self, method: str, path: str, body: str = "") -> tuple[int, str]:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            length = f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\nConnection: close"
            writer.write(_head(method, path, length) + body.encode())
            head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
            return int(head.split()[1]), answer.decode()
        finally:
            writer.close()


def _head(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", f"Authorization: Bearer {KEY}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class Watched:
    """What an API process was seen to need."""

    rig: Rig
    process: psutil.Process
    sizes: list[int] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    """Unix sockets: those to Redis, and the event loop's own pair."""
    running: list[int] = field(default_factory=list)

    async def watch(self) -> None:
        """Looks each second until it is cancelled."""
        while True:
            self.sizes.append(self.process.memory_info().rss)
            self.connections.append(len(self.process.net_connections("unix")))
            self.running.append(await self.rig.store.tickets.running())
            await asyncio.sleep(SAMPLE_SECONDS)

    @property
    def growth(self) -> float:
        """Its size at the end, by that after a third of the time."""
        return self.sizes[-1] / self.sizes[len(self.sizes) // 3]


@asynccontextmanager
async def background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Does work beside the body, and gives it up with it."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if found is not None and not isinstance(found, asyncio.CancelledError):
                raise found


@pytest.mark.parametrize(
    ("readers", "rate", "latency", "seconds"),
    [
        pytest.param(40, 10, 0.5, 3.0, id="short"),
        pytest.param(500, 50, 4.0, 300.0, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(900)]),
    ],
)
async def test_many_readers_and_submits(
    rig: Rig, readers: int, rate: float, latency: float, seconds: float, report: Callable[..., None]
) -> None:
    for _ in range(WORKERS):
        rig.start_worker(concurrency=200)
    assert rig.api is not None
    await rig.client.send("GET", "/v1/jobs")
    load, watched = Load(rig.port), Watched(rig, psutil.Process(rig.api.pid))

    async def all_ended() -> bool:
        queued = await rig.link.command("ZCARD", keys.QUEUED)
        return queued == 0 and await rig.store.tickets.running() == 0

    async with background(watched.watch(), *(load.read() for _ in range(readers))):
        await load.submit(rate, seconds, latency)
        await eventually(all_ended, "the end of the last jobs", within=60)
        await eventually(lambda: load.open_streams == 0, lambda: f"{load.open_streams} streams to end", within=30)
    assert not load.faults, "\n".join(load.faults[:20])
    assert len(load.ids) == len(load.took) == int(rate * seconds)
    assert load.most_open >= readers * 0.9
    assert load.streams >= readers
    assert max(watched.connections) <= MOST_CONNECTIONS
    if seconds > 60:
        assert watched.growth <= FLAT
    report(
        "load",
        submits=len(load.took),
        errors=len(load.faults),
        p50_submit_ms=round(1000 * percentile(load.took, 0.5), 1),
        p99_submit_ms=round(1000 * percentile(load.took, 0.99), 1),
        streams=load.streams,
        open_at_once=load.most_open,
        events=load.events,
        running_at_most=max(watched.running),
        API_MiB=f"{watched.sizes[len(watched.sizes) // 3] >> 20} → {watched.sizes[-1] >> 20}",
        connections_of_the_API=max(watched.connections),
    )
