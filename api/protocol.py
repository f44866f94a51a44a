"""What one connection may cost: how long its requests may take to arrive, how large their heads may be, how slowly its
answers may be read, and how many connections there may be. uvicorn bounds none of this with httptools.
"""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from typing import Any

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.errors import RefusedError, problem_response
from api.middleware import marks, new_request_id

HEAD_SECONDS = 10.0
"""From the connection, or the first byte of a further request, to the end of the request's headers."""
MOST_URL_BYTES = 8 << 10
MOST_HEADERS = 100
MOST_HEAD_BYTES = 32 << 10
BODY_SECONDS = 10.0
LEAST_BODY_BYTES = 64 << 10
"""What a body that is waited for must bring in `BODY_SECONDS`, unless it ends."""
READ_SECONDS = 30.0
"""A client that takes nothing from a full buffer for so long is cut off."""
UNREAD_SECONDS = 5.0
"""How long the rest of a body is thrown away after its answer, so that the client gets to read that."""


class GuardedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with limits. `limit_concurrency` of the config is how many connections there may be at once."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._most_connections, self.limit_concurrency = self.limit_concurrency, None
        self._too_many = False
        self._refusal: RefusedError | None = None
        self._in_head = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._arrival: TimerHandle | None = None
        self._reading: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accepts a connection; one too many is told so when it has said what it wants."""
        super().connection_made(transport)
        self._too_many = self._most_connections is not None and len(self.connections) > self._most_connections
        self._expect(HEAD_SECONDS, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends what waits for the client."""
        self._expect_nothing()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what came, as long as the head of a request stays within its limits."""
        if self.transport.is_closing():
            return
        of_a_body = not self._in_head and self.cycle is not None and self.cycle.more_body
        super().data_received(data)
        if self._in_head and not of_a_body:
            self._head_bytes += len(data)
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES + MOST_URL_BYTES:
            self._refusal = _headers_too_large()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begins to count."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        if self.cycle is None or self.cycle.response_complete:
            self._expect(HEAD_SECONDS, self._head_is_late)

    def on_url(self, url: bytes) -> None:
        """Takes a piece of the target."""
        super().on_url(url)
        if len(self.url) > MOST_URL_BYTES:
            self._refuse(RefusedError(414, "url_too_long", f"a URL has at most {MOST_URL_BYTES} bytes"))

    def on_headers_complete(self) -> None:
        """Starts the request, unless it is one too many or its headers are too large."""
        self._in_head = False
        self._expect_nothing()
        if len(self.headers) > MOST_HEADERS or sum(len(n) + len(v) for n, v in self.headers) > MOST_HEAD_BYTES:
            self._refuse(_headers_too_large())
        if self._too_many:
            detail = f"{self._most_connections} connections are open; try again shortly"
            self._refuse(RefusedError(503, "too_many_connections", detail))
        super().on_headers_complete()
        self._body_bytes = 0
        if not self.pipeline:
            self._expect(BODY_SECONDS, self._body_is_late)

    def on_body(self, body: bytes) -> None:
        """Takes a piece of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request is here."""
        self._expect_nothing()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written. A body of which it needed no more is thrown away, but not for ever."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._in_head:
            self._expect(HEAD_SECONDS, self._head_is_late)
        elif not self.cycle.more_body:
            self._expect_nothing()
        elif self.cycle.response_complete:
            self._expect(UNREAD_SECONDS, self.transport.close)
        else:  # it waited behind the one that was answered
            self._expect(BODY_SECONDS, self._body_is_late)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        self._reading = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def send_400_response(self, msg: str) -> None:
        """Refuses what the parser or a limit does not let pass, and closes."""
        refusal = self._refusal or RefusedError(400, "bad_request", "this is no HTTP request that can be read")
        self._expect_nothing()
        if self._may_answer():
            request_id = new_request_id()
            answer = problem_response(refusal, request_id)
            fields = [*answer.raw_headers, *marks(answer.raw_headers, request_id), (b"connection", b"close")]
            head = b"".join(b"%s: %s\r\n" % field for field in fields)
            self.transport.write(STATUS_LINE[refusal.status_code] + head + b"\r\n" + bytes(answer.body))
        self.transport.close()

    def _refuse(self, refusal: RefusedError) -> None:
        """Ends the parsing; uvicorn then calls `send_400_response`."""
        self._refusal = refusal
        raise HttpParserError

    def _may_answer(self) -> bool:
        """Whether what is written now would be the answer to what is refused, and not a part of another one."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        return cycle.more_body and not cycle.response_started and not self.pipeline

    def _expect(self, seconds: float, otherwise: Any) -> None:
        self._expect_nothing()
        self._arrival = self.loop.call_later(seconds, otherwise)

    def _expect_nothing(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _head_is_late(self) -> None:
        if self._in_head:
            self._cut(RefusedError(408, "request_too_slow", f"the headers took more than {HEAD_SECONDS:g} s"))
        else:
            self.transport.close()

    def _body_is_late(self) -> None:
        cycle, came = self.cycle, self._body_bytes
        self._body_bytes = 0
        if came >= LEAST_BODY_BYTES or self.flow.read_paused or cycle.body:  # the last two: we are the slow ones
            self._expect(BODY_SECONDS, self._body_is_late)
            return
        detail = f"a body must bring {LEAST_BODY_BYTES} bytes in {BODY_SECONDS:g} s, or end"
        self._cut(RefusedError(408, "request_too_slow", detail))

    def _cut(self, refusal: RefusedError) -> None:
        self._refusal = refusal
        self.send_400_response("")


def _headers_too_large() -> RefusedError:
    detail = f"a request has at most {MOST_HEADERS} headers, of {MOST_HEAD_BYTES} bytes together"
    return RefusedError(431, "headers_too_large", detail)
