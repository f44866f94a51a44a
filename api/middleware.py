"""What surrounds every request: its id, and an answer when something breaks that nobody expected."""

from __future__ import annotations

import random
import re

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_response

log = structlog.get_logger(__name__)

CLIENT_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


class RequestMiddleware:
    """Gives each request an id (the client's own `X-Request-Id` when it is a plain word) and turns a crash into 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if CLIENT_ID.fullmatch(given) else f"req_{random.getrandbits(80):020x}"
        scope.setdefault("state", {})["request_id"] = request_id
        extra = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except Exception as exc:
            log.exception("request failed", request_id=request_id, method=scope["method"], path=scope["path"])
            if started:
                raise
            await problem_response(exc, request_id)(scope, receive, send_marked)
