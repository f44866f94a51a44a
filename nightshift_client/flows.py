"""Operations as conversations: generators that yield what they want done and are sent what came of it.

A flow does no I/O, so it is written once and serves the blocking client and the async one; `transports` does what it
asks for. A request that fails is thrown into the flow as the httpx2.TransportError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import httpx2

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
CHUNK = 1 << 16
CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request. Its outcome is the httpx2.Response, read to the end unless it is a 2xx and to be streamed.

    `content` that is a path is a file, read as it is sent. `timeout` is how many seconds the answer may be silent.
    """

    method: str
    path: str
    timeout: float
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Path | None = None
    stream: Literal["bytes", "events"] | None = None

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does no more than sending it once."""
        return self.method in ("GET", "PUT", "DELETE") or "Idempotency-Key" in self.headers

    def build(self, http: httpx2.Client | httpx2.AsyncClient) -> httpx2.Request:
        """The request, with what the client adds to all. Raises OSError for a file that cannot be read."""
        given = {name: value for name, value in self.query.items() if value is not None}
        file = _FileBody(self.content) if isinstance(self.content, Path) else None
        request = http.build_request(
            self.method,
            self.path,
            params=given,
            headers={**self.headers, **({"Content-Length": str(file.size)} if file else {})},
            content=None if isinstance(self.content, Path) else self.content,
            timeout=httpx2.Timeout(self.timeout, connect=CONNECT_SECONDS),
        )
        if file is not None:
            request.stream = file
        return request


@dataclass(frozen=True, slots=True)
class Read:
    """Read on in the answer that is streamed: the next bytes or httpx2.ServerSentEvent, None at its end."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let some seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit(Generic[T_co]):
    """Hand an item to whoever iterates."""

    item: T_co


Step: TypeAlias = Send | Read | Pause
Flow: TypeAlias = Generator[Step, Any, T]
"""Ends with one result."""
Feed: TypeAlias = Generator[Step | Emit[T], Any, None]
"""Has items for results."""


def advance(flow: Feed[T], outcome: Any) -> Step | Emit[T] | None:
    """What the flow wants done next, given the outcome of the last thing, or its failure; None when it is over."""
    try:
        return flow.throw(outcome) if isinstance(outcome, httpx2.TransportError) else flow.send(outcome)
    except StopIteration:
        return None


def emitted(flow: Flow[T]) -> Feed[T]:
    """A flow with its result as the one item."""
    yield Emit((yield from flow))


class _FileBody(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A file as a request's body; it is opened anew for each time that it is sent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = iter(self)
        while chunk := await asyncio.to_thread(next, chunks, b""):
            yield chunk
