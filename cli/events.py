"""A job's events as they happen: Server-Sent Events that survive a lost connection."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from urllib.parse import quote

import httpx2

from cli.client import Client, Json, raise_for_problem, unreachable
from cli.errors import UnreachableError
from jobs.status import ENDED

ENDINGS = frozenset(f"job.{status}" for status in ENDED)
SILENCE_SECONDS = 45.0
"""The server sends a heartbeat every 15 s; a connection that is silent for longer is dead."""
PATIENCE_SECONDS = 60.0
"""How long a platform that was there may be away before we give up."""


async def follow(client: Client, job_id: str, *, patience: float = PATIENCE_SECONDS) -> AsyncGenerator[Json, None]:
    """Every event of the job once, in order, with the live `message.delta` between them, until the job has ended.

    A lost connection is taken up again after the last event seen. Raises RefusedError for a job that is not there,
    UnreachableError when the platform stays away for longer than `patience` seconds.
    """
    last: str | None = None
    ended = False
    away_since: float | None = None
    delay = 0.1
    while not ended:
        try:
            async for event in _connect(client, job_id, last):
                away_since, delay = None, 0.1
                if event.get("id"):
                    last = event["id"]
                    ended = event["type"] in ENDINGS  # a job that was retried has events after such a one
                if event["type"] != "reset":  # we were too slow, and come back
                    yield event
        except (httpx2.TransportError, UnreachableError) as exc:
            if last is None:
                raise _unreachable(client, exc) from exc
            away_since = away_since or time.monotonic()
            if not ended and time.monotonic() - away_since > patience:
                raise _unreachable(client, exc) from exc
        if not ended:
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)


async def _connect(client: Client, job_id: str, last: str | None) -> AsyncIterator[Json]:
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    timeout = httpx2.Timeout(SILENCE_SECONDS, connect=5.0)
    path = f"/v1/jobs/{quote(job_id, safe='')}/events"
    async with client.http.stream("GET", path, headers=headers, timeout=timeout) as response:
        await raise_for_problem(response)
        async for data in parse(response.aiter_bytes()):
            yield json.loads(data)


async def parse(chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """The `data` of each event of a stream.

    Lines end with LF or CR LF here and nowhere else: `str.splitlines` would cut at characters that JSON may hold.
    """
    rest = b""
    data: list[str] = []
    async for chunk in chunks:
        *lines, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" ").decode())
            elif not line and data:
                yield "\n".join(data)
                data = []


def _unreachable(client: Client, exc: Exception) -> UnreachableError:
    return exc if isinstance(exc, UnreachableError) else unreachable(client.connection, exc)
