"""The background duties, in a thread with an event loop and a Redis connection of their own: a job that blocks the main
loop must not cost its neighbours their leases.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from jobs.link import RedisLink, connect

log = structlog.get_logger("worker")
Duty = Coroutine[Any, Any, None]


class DutyThread:
    """Runs coroutines side by side until it is stopped. A duty that fails is logged and takes the others with it, so
    that `on_failure` can end a worker that would otherwise hold jobs without renewing their leases.
    """

    def __init__(
        self, redis_url: str, duties: Callable[[RedisLink], Sequence[Duty]], on_failure: Callable[[], None]
    ) -> None:
        self._redis_url = redis_url
        self._duties = duties
        self._on_failure = on_failure
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="duties", daemon=True)

    def start(self) -> None:
        """Starts the thread and returns when its loop runs."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Cancels the duties and waits for the thread to end."""
        if self._loop is not None and self._main is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            asyncio.run(self._gather())
        except asyncio.CancelledError:
            pass
        except BaseException:
            log.exception("a background duty failed")
            self._on_failure()

    async def _gather(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        self._ready.set()
        link = RedisLink(connect(self._redis_url))
        try:
            async with asyncio.TaskGroup() as group:
                for duty in self._duties(link):
                    group.create_task(duty)
        finally:
            await link.aclose()
