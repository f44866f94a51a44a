"""A load generator: one POST after another on each of some keep-alive connections, as cheap as Python can."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.report import percentile


class Connection(asyncio.Protocol):
    """Sends the same request again as soon as the answer to the last one is whole."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and len(body) >= _content_length(head):
            self._received = b""
            self._load.answered(int(head[9:12]), time.perf_counter() - self._sent)
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.done.set()

    def _next(self) -> None:
        assert self._transport is not None
        if self._load.take():
            self._sent = time.perf_counter()
            self._transport.write(self._load.request)


class Load:
    """What the connections share: the request, how many are left, and what was answered."""

    def __init__(self, request: bytes, requests: int) -> None:
        self.request = request
        self.done = asyncio.Event()
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self._requests = self._left = requests

    def take(self) -> bool:
        """Whether there is one more to send."""
        self._left -= 1
        return self._left >= 0

    def answered(self, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        self.latencies.append(seconds)
        if len(self.latencies) == self._requests:
            self.done.set()


async def measure(args: argparse.Namespace) -> dict[str, object]:
    """Requests/s, latencies in seconds, and the answers by their status."""
    url = urlsplit(args.url)
    body = args.body.encode()
    lines = [f"POST {url.path} HTTP/1.1", f"Host: {url.netloc}", "Content-Type: application/json",
             f"Content-Length: {len(body)}", *args.header]  # fmt: skip
    load = Load("\r\n".join([*lines, "", ""]).encode() + body, args.requests)
    begun = time.perf_counter()
    loop = asyncio.get_running_loop()
    for _ in range(args.connections):
        await loop.create_connection(lambda: Connection(load), url.hostname, url.port)
    await load.done.wait()
    return {
        "seconds": time.perf_counter() - begun,
        "statuses": {str(status): count for status, count in load.statuses.items()},
        "p50": percentile(load.latencies, 0.5),
        "p95": percentile(load.latencies, 0.95),
    }


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.index(b"content-length:") + 15
    return int(lower[at:].split(b"\r\n", 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--header", action="append", default=[])
    args = parser.parse_args()
    print(json.dumps(uvloop.run(measure(args))))


if __name__ == "__main__":
    main()
