"""Protocols that a library speaks for us, and that few clients ask for: its import, a second of CPU time and 20 MB,
waits for the first request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import caller_of
from api.body import StrictRequest


class LazyApp:
    """An ASGI application behind the same keys, and the same strictness about bodies, as the rest of the API.

    `open_app` is called in a thread by the first request that has a key, and may import what takes its time; it gives
    the application for as long as one is inside. `request.state.caller` is who makes a request. Close it at the end.
    """

    def __init__(self, open_app: Callable[[], AbstractAsyncContextManager[ASGIApp]]) -> None:
        self._open_app = open_app
        self._opened: asyncio.Future[ASGIApp]
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Closes the application, if there was a request for it."""
        self._stop.set()
        if self._task is not None:
            await self._task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = StrictRequest(scope, receive)
        scope.setdefault("state", {})["caller"] = await caller_of(request)
        body = await request.body()
        await request.json()  # what every body must be
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        app = await self._app()
        await app(scope, again, send)

    async def _app(self) -> ASGIApp:
        if self._task is None or self._task.done():  # done without a stop: it failed, and is tried again
            self._opened = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._opened), name="lazy app")
        return await asyncio.shield(self._opened)

    async def _run(self, opened: asyncio.Future[ASGIApp]) -> None:
        """Opens and closes in one task, whichever request was the first: a task group may be inside."""
        try:
            async with await asyncio.to_thread(self._open_app) as app:
                opened.set_result(app)
                await self._stop.wait()
        except Exception as exc:
            if opened.done():
                raise
            opened.set_exception(exc)
