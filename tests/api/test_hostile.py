"""What hostile clients send, and what they do with a connection: each is refused, none is a fault of ours, and the
server serves the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator

import httpx2
import pytest

from api import live, protocol
from api.app import create_app
from api.body import MAX_BYTES
from api.main import server
from api.middleware import SECURITY_HEADERS
from api.protocol import MOST_HEAD_BYTES, MOST_HEADERS, MOST_URL_BYTES
from jobs import keys
from jobs.keyring import Keyring
from tests.api.conftest import ADMIN, client_of, serving, submitted, until
from tests.api.test_events import streamed

KEY = b"Host: x\r\nAuthorization: Bearer %s\r\n" % ADMIN.encode()
JSON = KEY + b"Content-Type: application/json\r\n"
BODY = b'{"agent":"echo","input":"x"}'


def get(target: bytes, headers: bytes = b"") -> bytes:
    return b"GET %s HTTP/1.1\r\n%s%s\r\n" % (target, KEY, headers)


def post(headers: bytes, body: bytes = BODY, path: bytes = b"/v1/jobs") -> bytes:
    return b"POST %s HTTP/1.1\r\n%s%s\r\n%s" % (path, KEY, headers, body)


def said(content_type: bytes = b"application/json", more: bytes = b"", body: bytes = BODY) -> bytes:
    return post(b"Content-Type: %s\r\nContent-Length: %d\r\n%s" % (content_type, len(body), more), body)


HOSTILE: dict[str, tuple[bytes, int]] = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40, 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no HTTP": (b"hello\r\n\r\n", 400),
    "method that there is none of": (b"FROB / HTTP/1.1\r\n\r\n", 400),
    "another method": (b"TRACE /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "version": (b"GET / HTTP/9.9\r\n\r\n", 400),
    "long URL": (get(b"/v1/jobs?after=" + b"x" * MOST_URL_BYTES), 414),
    "endless URL": (b"GET /" + b"x" * 60_000, 414),
    "path that is no ASCII": (get(b"/v1/\xff"), 400),
    "path of bytes": (get(b"/v1/jobs/%ff%fe%00"), 404),
    "path upwards": (get(b"/v1/files/..%2f..%2fetc%2fpasswd"), 404),
    "long header": (get(b"/v1/jobs", b"X: " + b"x" * MOST_HEAD_BYTES + b"\r\n"), 431),
    "endless header": (b"GET / HTTP/1.1\r\nX: " + b"x" * 60_000, 431),
    "many headers": (get(b"/v1/jobs", b"X: y\r\n" * MOST_HEADERS), 431),
    "header without a colon": (get(b"/v1/jobs", b"hello\r\n"), 400),
    "control character in a header": (get(b"/v1/jobs", b"X: a\0b\r\n"), 400),
    "bytes for a key": (b"GET /v1/jobs HTTP/1.1\r\nAuthorization: Bearer \xff\xfe\r\n\r\n", 401),
    "bytes for an event id": (get(b"/v1/jobs/job_0/events", b"Last-Event-ID: \xff\r\n"), 404),
    "length and chunks": (post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "two lengths": (post(b"Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
    "length below nothing": (post(b"Content-Length: -1\r\n"), 400),
    "length beyond all": (post(b"Content-Length: 99999999999999999999999\r\n"), 400),
    "length beyond the limit": (post(b"Content-Length: %d\r\n" % (MAX_BYTES + 1), b""), 413),
    "chunk of no length": (post(b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", b"xyz\r\n"), 400),
    "chunk beyond all": (post(b"Transfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\n"), 400),
    "transfer encoding": (post(b"Transfer-Encoding: gzip\r\n"), 400),
    "gzip": (said(more=b"Content-Encoding: gzip\r\n"), 415),
    "two encodings": (said(more=b"Content-Encoding: identity, br\r\n"), 415),
    "gzip for a file": (post(b"Content-Length: 1\r\nContent-Encoding: gzip\r\n", b"x", b"/v1/files?name=a"), 415),
    "media type": (said(b"text/json"), 415),
    "multipart": (said(b"multipart/form-data; boundary=x"), 415),
    "UTF-16": (said(b"application/json; charset=utf-16", body=BODY.decode().encode("utf-16")), 415),
    "UTF-8 that is said to be Latin-1": (said(b'application/json; charset="iso-8859-1"'), 415),
    "byte order mark": (said(body=b"\xef\xbb\xbf" + BODY), 400),
    "key that stands twice": (said(body=b'{"agent":"echo","agent":"echo","input":"x"}'), 400),
    "depth": (said(body=b"[" * 100_000), 400),
    "half of a pair": (said(body=b'{"agent":"echo","input":"\\ud800"}'), 400),
    "number beyond a double": (said(body=b'{"agent":"echo","input":{"a":1e999}}'), 400),
    "true for a number": (said(body=b'{"agent":"echo","input":"x","budget":{"steps":true}}'), 422),
    "agent with NUL": (said(body=b'{"agent":"\\u0000","input":"x"}'), 422),
    "idempotency key": (said(more=b"Idempotency-Key: \xff\r\n"), 422),
    "huge cursor": (get(b"/v1/jobs?after=" + b"x" * 7000), 422),
    "cursor with NUL": (get(b"/v1/jobs?after=%00"), 422),
    "query that is no UTF-8": (get(b"/v1/jobs?user=%ff"), 422),
    "raw bytes for a query": (get(b"/v1/jobs?user=\xff"), 400),
    "unknown parameter": (get(b"/v1/jobs?" + b"a=1&" * 1500), 422),
    "WebSocket": (
        get(b"/v1/jobs/job_0/events", b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"),
        404,
    ),
}


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = httpx2.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answered(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body of the next answer."""
    async with asyncio.timeout(20):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), headers, body


async def assert_refused(reader: asyncio.StreamReader, status: int) -> dict:
    """The problem document; it has what every answer has."""
    found, headers, body = await answered(reader)
    assert found == status, body
    assert headers["content-type"] == "application/problem+json"
    assert {(name.encode(), value.encode()) for name, value in headers.items()} >= set(SECURITY_HEADERS)
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["request_id"] == headers["x-request-id"]
    assert len(body) < 5_000
    return problem


async def assert_healthy(url: str) -> None:
    async with client_of(url) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/v1/jobs", json={"agent": "echo", "input": "x"})).status_code == 202


async def test_what_is_hostile_is_refused(url, echo):
    for name, (sent, status) in HOSTILE.items():
        async with connected(url) as (reader, writer):
            writer.write(sent)
            try:
                await assert_refused(reader, status)
            except (AssertionError, TimeoutError, asyncio.IncompleteReadError) as exc:
                raise AssertionError(name) from exc
    await assert_healthy(url)


# ---- what they do with a connection


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost:", "headers"),
        (get(b"/healthz") + b"GET /healthz HTTP/1.1\r\nHost:", "headers"),
        (post(b"Content-Type: application/json\r\nContent-Length: 100\r\n", b"{"), "body"),
        (post(b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n", b"/v1/files?name=a"), "body"),
    ],
)
async def test_a_request_that_does_not_arrive_is_given_up(url, echo, monkeypatch, sent, detail):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.2)
    async with connected(url) as (reader, writer):
        writer.write(sent)
        if sent.startswith(get(b"/healthz")):
            assert (await answered(reader))[0] == 200
        problem = await assert_refused(reader, 408)
        assert problem["code"] == "request_too_slow"
        assert detail in problem["detail"]
        assert await reader.read() == b""
    await assert_healthy(url)


async def test_a_connection_that_says_nothing_is_closed(url, echo, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    async with connected(url) as (reader, _):
        assert await reader.read() == b""


async def test_a_body_that_comes_steadily_may_take_longer(url, echo, monkeypatch):
    monkeypatch.setattr(protocol, "BODY_SECONDS", 2)
    monkeypatch.setattr(protocol, "LEAST_BODY_BYTES", 1)
    async with connected(url) as (reader, writer):
        writer.write(post(b"Content-Length: 10\r\n", b"", b"/v1/files?name=a"))
        for _ in range(10):
            await asyncio.sleep(0.25)
            writer.write(b"x")
        assert (await answered(reader))[0] == 201


async def test_the_rest_of_a_refused_body_is_not_awaited_for_ever(url, echo, monkeypatch):
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.2)
    async with connected(url) as (reader, writer):
        writer.write(post(b"Content-Type: application/json\r\nContent-Length: 9000000\r\n", b"{"))
        assert (await answered(reader))[0] == 413
        writer.write(b" " * 1000)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_one_connection_too_many_is_told_so(settings, echo):
    async with serving(settings.model_copy(update={"max_connections": 3})) as url, contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            reader, writer = await stack.enter_async_context(connected(url))
            writer.write(get(b"/healthz"))
            assert (await answered(reader))[0] == 200
        async with connected(url) as (late, asks):
            asks.write(get(b"/healthz"))
            status, headers, body = await answered(late)
            assert (status, json.loads(body)["code"]) == (503, "too_many_connections")
            assert int(headers["retry-after"]) > 0
            assert await late.read() == b""
        writer.write(get(b"/healthz"))
        assert (await answered(reader))[0] == 200, "those that were there are served"
        await stack.aclose()
        await until(lambda: served(url))


async def served(url: str) -> bool:
    async with client_of(url) as client:
        return (await client.get("/healthz")).status_code == 200


async def test_a_client_that_does_not_read_is_cut_off(settings, echo, link, monkeypatch):
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.2)
    running = server(settings.model_copy(update={"max_file_mb": 20}))
    task = asyncio.create_task(running.serve())

    async def started() -> bool:
        return running.started

    await until(started)
    address = running.servers[0].sockets[0].getsockname()
    try:
        async with client_of(f"http://127.0.0.1:{address[1]}") as client:
            file = (await client.post("/v1/files", params={"name": "a"}, content=b"x" * (16 << 20))).json()

        async def alone() -> bool:
            return not running.server_state.connections

        await until(alone)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(address)
            slow.sendall(get(b"/v1/files/" + file["id"].encode()))

            async def accepted() -> bool:
                return bool(running.server_state.connections)

            await until(accepted)
            await until(alone)
    finally:
        running.should_exit = True
        await task


# ---- streams

NASTY = [
    "\n\ndata: {}\n\n", "\r\r", "a\r\nid: 5-0\r\n", "event: reset", ":", "\0", "\x85\u2028\u2029\x0b\x0c\x1c", "\ufeff",
    "</script>", "retry: 1\n",
]  # fmt: skip


async def test_no_text_breaks_the_framing_of_a_stream(api, echo, worker, link):
    job = await submitted(api)
    claim = await worker.claim()
    path = f"/v1/jobs/{job['id']}/events"
    async with api.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
        pieces = response.aiter_bytes()
        received = await anext(pieces)
        for text in NASTY:
            await worker.record(claim, "state.changed", {"text": text, text: 1})
        await worker.end(claim, output=NASTY[0])
        async for piece in pieces:
            received += piece
    plain = re.sub("\r\n|\r", "\n", received.decode())  # each of the three ends a line
    frames = [frame for frame in plain.split("\n\n") if not frame.startswith(":")]
    assert frames.pop() == ""
    texts = []
    for frame in frames:
        fields = [line.partition(": ")[::2] for line in frame.split("\n")]
        assert [name for name, _ in fields] == ["id", "event", "data"], frame
        event = json.loads(fields[2][1])
        assert (event["id"], event["type"]) == (fields[0][1], fields[1][1])
        texts.append(event["data"].get("text"))
    assert texts == [None, None, *NASTY, None]


async def test_a_reader_that_is_too_slow_is_reset_and_goes_on_where_it_was(api, echo, worker, link, monkeypatch):
    monkeypatch.setattr(live, "MOST_PENDING", 0)
    job = await submitted(api)
    async with streamed(api, job["id"]) as events:
        last = (await anext(events))["id"]
        delta = json.dumps({"type": "message.delta", "data": {"step": 1, "text": "hello"}})
        await link.command("PUBLISH", keys.channel(job["id"]), delta)
        reset = await anext(events)
        assert (reset["event"], "id" in reset) == ("reset", False)
        assert json.loads(reset["data"])["data"] == {"reason": "too_slow"}
        assert await anext(events, None) is None
    await worker.run()
    async with streamed(api, job["id"], **{"Last-Event-ID": last}) as events:
        assert [event["event"] async for event in events] == ["job.started", "job.completed"]


def test_what_a_slow_watcher_has_not_seen_is_bounded():
    watch = live.Watch()
    for number in range(live.MOST_PENDING):
        watch.notify({"type": "message.delta", "n": number})
    assert not watch.overrun
    watch.notify({"type": "message.delta"})
    assert (watch.overrun, len(watch._live)) == (True, live.MOST_PENDING)


# ---- cursors

BY_PLACE = {"/v1/jobs/{job_id}/events": "the id of an event", "/v1/sessions/{session_id}": "the offset of a message"}
"""Lists that one may ask for from any place on."""


async def lists(api: httpx2.AsyncClient) -> list[str]:
    """Every path whose pages are asked for by cursor; new ones come by themselves."""
    paths = (await api.get("/openapi.json")).json()["paths"]
    return [
        path
        for path, operations in paths.items()
        if any(parameter["name"] == "after" for parameter in operations.get("get", {}).get("parameters", []))
        and path not in BY_PLACE
    ]


async def test_a_cursor_that_someone_made_up_is_refused_by_every_list(api, echo):
    for _ in range(2):
        await submitted(api)
    cursor = (await api.get("/v1/jobs", params={"limit": 1})).json()["next_cursor"]
    assert (await api.get("/v1/jobs", params={"limit": 1, "after": cursor})).json()["has_more"] is False
    turned = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    found = await lists(api)
    assert len(found) >= 5
    schedule = await api.post("/v1/schedules", json={"agent": "echo", "input": "x", "cron": "@every 1h"})
    endpoint = await api.post("/v1/webhook_endpoints", json={"url": "http://93.184.216.34/hook"})
    made = {"schedule_id": schedule.json()["id"], "endpoint_id": endpoint.json()["id"]}
    of_list = {"/v1/memories": {"user": "u1"}}
    for path in found:
        for after in (turned, "MTcwMDAwMDAwMDAwMCBqb2JfYWJj", *([] if path == "/v1/jobs" else [cursor])):
            answer = await api.get(path.format(**made), params={"after": after, **of_list.get(path, {})})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor"), path


# ---- what every answer has


async def test_every_answer_has_the_security_headers(api, echo):
    assert {name for name, _ in SECURITY_HEADERS} == {
        b"x-content-type-options", b"content-security-policy", b"referrer-policy", b"cross-origin-resource-policy",
        b"cache-control",
    }  # fmt: skip
    for path in ("/healthz", "/v1/jobs", "/v1/nothing", "/openapi.json", "/metrics", "/docs"):
        headers = (await api.get(path)).headers
        for name, value in SECURITY_HEADERS:
            if (path, name) != ("/docs", b"content-security-policy"):
                assert headers[name.decode()] == value.decode(), path
    assert "frame-ancestors 'none'" in (await api.get("/docs")).headers["content-security-policy"]


async def test_docs_and_metrics_have_switches(settings):
    off = settings.model_copy(update={"docs": False, "metrics": False})
    async with serving(off) as url, client_of(url, None) as client:
        assert [(await client.get(path)).status_code for path in ("/docs", "/metrics", "/redoc")] == [404, 404, 404]
        assert (await client.get("/openapi.json")).status_code == 200
    assert "/docs" in {getattr(route, "path", "") for route in create_app(settings).routes}


async def test_a_secret_is_in_no_answer_and_in_no_log(api, url, echo, link, capsys):
    _, secret = await Keyring(link).create("default", "k", ["admin"])
    wrong = "ns_" + "s3cr3t" * 7
    async with client_of(url, wrong) as stranger, client_of(url, secret) as client:
        answers = [
            await stranger.get("/v1/jobs"),
            await client.get("/v1/jobs", params={"api_key": wrong}),
            await client.get("/v1/jobs", params={"after": wrong}),
            await client.get("/v1/jobs", params={"limit": wrong}),
            await client.post("/v1/jobs", json={"agent": "echo", "input": "x", "api_key": wrong}),
            await client.post("/v1/jobs", json={"agent": "echo", "input": "x", "priority": wrong}),
            await client.post("/v1/jobs", json=BODY.decode() + wrong),
            await client.post("/v1/webhook_endpoints", json={"url": f"https://u:{wrong}@10.0.0.1/{wrong}?{wrong}"}),
            await client.post("/v1/jobs", json={"agent": "echo", "input": "x"}, headers={"Idempotency-Key": wrong * 9}),
        ]
    assert {answer.status_code for answer in answers} == {401, 422}
    shown = "".join(answer.text + str(answer.headers) for answer in answers)
    written = "".join(capsys.readouterr())
    for text in (shown, written):
        assert secret not in text
        assert "s3cr3t" not in text
        assert ADMIN not in text
