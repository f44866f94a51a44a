"""The reader of event streams, against a server that breaks them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from cli import events
from cli.client import Client
from cli.errors import RefusedError, UnreachableError
from cli.settings import Connection

HEAD = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
Answer = Callable[[str | None], Awaitable[bytes] | bytes]


def event(number: int, type_: str = "model.started") -> dict:
    return {"id": f"evt_{number}-0", "type": type_, "job_id": "job_1", "data": {"text": "a\u2028b\x85c"}}


def sse(data: dict) -> bytes:
    text = json.dumps(data, ensure_ascii=False)
    return f"event: {data['type']}\nid: {data.get('id', '')}\ndata: {text}\n\n".encode()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Client]:
    """A server that sends what `answer` makes of each request's Last-Event-ID, and closes the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        last = next((line.split(": ")[1] for line in head.splitlines() if line.startswith("last-event-id")), None)
        made = answer(last)
        writer.write(made if isinstance(made, bytes) else await made)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with Client(Connection(f"http://127.0.0.1:{port}", "ns_key", "the test")) as client:
            yield client
    finally:
        server.close()


async def collect(client: Client) -> list[dict]:
    return [found async for found in events.follow(client, "job_1", patience=0.3)]


async def test_a_stream_that_is_cut_anywhere_is_taken_up_again_without_loss_or_repetition():
    all_events = [event(n) for n in range(1, 40)] + [event(40, "job.completed")]
    rng = random.Random(7)
    connections = 0

    def answer(last: str | None) -> bytes:
        nonlocal connections
        connections += 1
        start = 0 if last is None else int(last.removeprefix("evt_").partition("-")[0])
        whole = b": heartbeat\n\n" + b"".join(map(sse, all_events[start:]))
        return HEAD.encode() + whole[: rng.randrange(len(whole) + 40)]

    async with serving(answer) as client:
        assert await collect(client) == all_events
    assert connections > 3


async def test_live_events_pass_through_and_do_not_count_as_seen():
    delta = {"type": "message.delta", "job_id": "job_1", "data": {"text": "hi"}}
    asked: list[str | None] = []

    def answer(last: str | None) -> bytes:
        asked.append(last)
        rest = sse(delta) if last is None else sse(event(2, "job.failed"))
        return HEAD.encode() + (sse(event(1)) if last is None else b"") + rest

    async with serving(answer) as client:
        assert await collect(client) == [event(1), delta, event(2, "job.failed")]
    assert asked == [None, "evt_1-0"]


async def test_an_ending_that_a_retry_undid_is_not_the_end():
    history = [event(1, "job.failed"), event(2, "job.queued"), event(3, "job.completed")]
    async with serving(lambda last: HEAD.encode() + b"".join(map(sse, history))) as client:
        assert await collect(client) == history


async def test_it_gives_up_when_the_platform_stays_away():
    seen: list[str | None] = []

    def answer(last: str | None) -> bytes:
        seen.append(last)
        return HEAD.encode() + sse(event(1)) if last is None else b""

    async with serving(answer) as client:
        with pytest.raises(UnreachableError):
            await collect(client)
    assert len(seen) > 2


async def test_a_job_that_is_not_there_is_no_reason_to_try_again():
    body = b'{"detail": "there is no job", "code": "job_not_found"}'
    head = f"HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\ncontent-length: {len(body)}\r\n\r\n"
    asked: list[str | None] = []

    def answer(last: str | None) -> bytes:
        asked.append(last)
        return head.encode() + body

    async with serving(answer) as client:
        with pytest.raises(RefusedError, match="there is no job") as refused:
            await collect(client)
    assert (refused.value.status, refused.value.code, len(asked)) == (404, "job_not_found", 1)


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_lines_may_be_cut_anywhere_and_end_in_two_ways(size):
    raw = 'data: {"a":\r\ndata: "é\u2028"}\r\n\r\n: comment\n\nid: 7\n\ndata:x\n\n'.encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), size):
            yield raw[start : start + size]

    assert [found async for found in events.parse(chunks())] == ['{"a":\n"é\u2028"}', "x"]
