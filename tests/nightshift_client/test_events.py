"""The reader of event streams, against servers that break them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift_client import ApiError, AsyncClient, Client, UnreachableError
from tests.nightshift_client.script import client_of

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
OVER = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
PATIENCE = 0.3
Collect = Callable[[str], Awaitable[list]]
Answer = Callable[[str | None], bytes]


def event(number: int, type_: str = "model.started", text: str = "a\u2028b\x85c") -> dict:
    return {"id": f"evt_{number}-0", "type": type_, "job_id": "job_1", "created_at": "", "data": {"text": text}}


def delta(text: str) -> dict:
    return {"type": "message.delta", "job_id": "job_1", "created_at": "", "data": {"text": text}}


def sse(data: dict, newline: str = "\n") -> bytes:
    name = [f"id: {data['id']}"] if "id" in data else []
    lines = [f"event: {data['type']}", *name, f"data: {json.dumps(data, ensure_ascii=False)}", "", ""]
    return newline.join(lines).encode()


def number_of(last: str | None) -> int:
    return 0 if last is None else int(last.removeprefix("evt_").partition("-")[0])


# ---- any cut, any chunk


class Cut(httpx2.SyncByteStream):
    """Bytes in pieces of a size, and then the end of the connection, orderly or not."""

    def __init__(self, content: bytes, size: int, *, orderly: bool) -> None:
        self._content, self._size, self._orderly = content, size, orderly

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._content), self._size):
            yield self._content[start : start + self._size]
        if not self._orderly:
            raise httpx2.ReadError("the connection was cut")


TEXTS = st.text(st.sampled_from("aé€😀\r\n\x85\u2028\0: "), max_size=12)
CUTS = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 40), st.booleans()), max_size=8)


@given(texts=st.lists(TEXTS, min_size=1, max_size=8), cuts=CUTS, newline=st.sampled_from(["\n", "\r\n"]))
def test_each_event_comes_once_and_whole_wherever_the_stream_is_cut(
    texts: list[str], cuts: list[tuple[float, int, bool]], newline: str
) -> None:
    history = [event(number, text=text) for number, text in enumerate(texts, 1)]
    left = list(cuts)

    def answer(request: httpx2.Request) -> httpx2.Response:
        start = number_of(request.headers.get("Last-Event-ID"))
        if start == len(history):
            return httpx2.Response(204)
        pieces = [f": heartbeat{newline}{newline}".encode() + sse(e, newline) for e in history[start:]]
        content = b"".join(pieces)
        share, size, orderly = left.pop() if left else (1.0, 1000, True)
        stream = Cut(content[: round(share * len(content))], size, orderly=orderly)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)

    with client_of(answer) as (client, _):
        assert list(client.events("job_1")) == history


# ---- over sockets, by both clients


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """A server that sends what `answer` makes of each request's Last-Event-ID, and closes the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        last = next((line.split(": ")[1] for line in head.splitlines() if line.startswith("last-event-id")), None)
        writer.write(answer(last))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def by_awaiting(url: str) -> list:
    async with AsyncClient(url, "ns_key", patience=PATIENCE) as client:
        return [found async for found in client.events("job_1")]


async def by_blocking(url: str) -> list:
    def work() -> list:
        with Client(url, "ns_key", patience=PATIENCE) as client:
            return list(client.events("job_1"))

    return await asyncio.to_thread(work)


@pytest.fixture(params=[by_awaiting, by_blocking], ids=["async", "blocking"])
def collect(request: pytest.FixtureRequest) -> Collect:
    """All events of a job."""
    found: Collect = request.param
    return found


async def test_live_events_pass_through_and_do_not_count_as_seen(collect: Collect) -> None:
    asked: list[str | None] = []

    def answer(last: str | None) -> bytes:
        asked.append(last)
        return {None: HEAD + sse(event(1)) + sse(delta("hi")), "evt_1-0": HEAD + sse(event(2))}.get(last, OVER)

    async with serving(answer) as url:
        assert await collect(url) == [event(1), delta("hi"), event(2)]
    assert asked == [None, "evt_1-0", "evt_2-0"]


async def test_an_ending_that_a_retry_undid_is_not_the_end(collect: Collect) -> None:
    history = [event(1, "job.failed"), event(2, "job.queued"), event(3, "job.completed")]

    def answer(last: str | None) -> bytes:
        rest = history[number_of(last) :][:1]
        return HEAD + sse(rest[0]) if rest else OVER

    async with serving(answer) as url:
        assert await collect(url) == history


async def test_a_stream_that_is_silent_and_cut_is_no_platform_that_is_away(collect: Collect) -> None:
    asked: list[str | None] = []

    def answer(last: str | None) -> bytes:
        asked.append(last)
        return OVER if last else HEAD + (sse(event(1)) if len(asked) > 3 else b": heartbeat\n\n")

    async with serving(answer) as url:
        assert await collect(url) == [event(1)]
    assert len(asked) == 5


async def test_it_gives_up_when_the_platform_stays_away(collect: Collect) -> None:
    asked: list[str | None] = []

    def answer(last: str | None) -> bytes:
        asked.append(last)
        return HEAD + sse(event(1)) if last is None else b""

    async with serving(answer) as url:
        with pytest.raises(UnreachableError):
            await collect(url)
    assert len(asked) > 2


async def test_a_refusal_is_no_reason_to_try_again(collect: Collect) -> None:
    body = b'{"detail": "there is no job", "code": "job_not_found"}'
    head = f"HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\ncontent-length: {len(body)}\r\n\r\n"
    asked: list[str | None] = []

    def answer(last: str | None) -> bytes:
        asked.append(last)
        return head.encode() + body

    async with serving(answer) as url:
        with pytest.raises(ApiError, match="there is no job") as refused:
            await collect(url)
    assert (refused.value.status, refused.value.code, len(asked)) == (404, "job_not_found", 1)


async def test_what_is_no_stream_of_events_is_said_to_be_none(collect: Collect) -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<p>please log in</p>"
    async with serving(lambda _: page) as url:
        with pytest.raises(UnreachableError, match="something else than events"):
            await collect(url)


async def test_whoever_leaves_early_leaves_no_connection_open() -> None:
    gone = asyncio.Event()
    kept: list[object] = []
    sys.set_asyncgen_hooks(finalizer=kept.append)  # or the collector would close what we forgot

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + sse(event(1)))
        await writer.drain()
        while await reader.read(1000):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server, AsyncClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        events = client.events("job_1")
        assert await anext(events) == event(1)
        assert not gone.is_set()
        await events.aclose()
        async with asyncio.timeout(10):
            await gone.wait()
