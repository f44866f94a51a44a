"""What surrounds every request: its id, the headers of every answer, and an answer when something breaks that nobody
expected.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.audit import note_answer
from api.errors import problem_response
from jobs.rate import Standing

log = structlog.get_logger(__name__)

CLIENT_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
Header = tuple[bytes, bytes]
SECURITY_HEADERS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""Of every answer that does not say otherwise itself. What is answered is data, and no page."""


class RequestMiddleware:
    """Gives each request an id (the client's own `X-Request-Id` when it is a plain word) and turns a crash into 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if CLIENT_ID.fullmatch(given) else new_request_id()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                await note_answer(scope, message)
                headers = list(message.get("headers", ()))
                message["headers"] = headers + marks(headers, request_id) + rate_headers(state.get("rate"))
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except ClientDisconnect:
            return
        except Exception as exc:
            log.exception("request failed", request_id=request_id, method=scope["method"], path=scope["path"])
            if started:
                raise
            await problem_response(exc, request_id)(scope, receive, send_marked)


def rate_headers(standing: Standing | None) -> list[Header]:
    """What a tenant with a limit is told of it: draft-ietf-httpapi-ratelimit-headers, from its 8th version on."""
    if standing is None:
        return []
    rate = standing.rate
    return [
        (b"ratelimit-policy", b'"requests";q=%d;w=%d' % (rate.burst, rate.window)),
        (b"ratelimit", b'"requests";r=%d;t=%d' % (standing.left, standing.more_in)),
    ]


def new_request_id() -> str:
    """An id for a request whose client gave none."""
    return f"req_{random.getrandbits(80):020x}"


def marks(headers: Iterable[Header], request_id: str) -> list[Header]:
    """What an answer with these headers still lacks."""
    there = {name for name, _ in headers}
    return [(b"x-request-id", request_id.encode()), *(mark for mark in SECURITY_HEADERS if mark[0] not in there)]
