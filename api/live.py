"""The hub: one Redis subscription of the process, shared by all who watch jobs, and by what is remembered of Redis.

A message only says that something may be new; what is true stands in the journal. So a lost message costs a watcher
seconds, until it looks again by itself, and never an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from agent_core.types import Json
from jobs import keys
from jobs.recent import Recent

log = structlog.get_logger(__name__)

LOOK_AGAIN_SECONDS = 3.0
"""A watcher that hears nothing looks into the journal after this time."""
SUBSCRIBE_SECONDS = 1.0
RECONNECT_SECONDS = 0.5
PING_SECONDS = 10.0
MOST_PENDING = 256
"""Live events kept for a watcher; one that is further behind is told that it missed some."""
BROKEN = (RedisError, OSError, AttributeError)
"""What a broken connection raises: redis-py's trips over its own writer when another coroutine has just closed it."""


class Watch:
    """What one watcher of a job has not seen yet; `overrun` when live events were dropped because it is slow."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._live: list[Json] = []
        self.closed = False
        self.overrun = False

    async def wait(self, timeout: float = LOOK_AGAIN_SECONDS) -> list[Json]:
        """Returns when the journal may have grown, with the live events since the last call, or after `timeout` s."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._news.wait()
        self._news.clear()
        live, self._live = self._live, []
        return live

    def notify(self, event: Json | None = None) -> None:
        """Wakes the watcher, with a live event or because the journal grew."""
        if event is not None and len(self._live) >= MOST_PENDING:
            self.overrun = True
        elif event is not None:
            self._live.append(event)
        self._news.set()

    def close(self) -> None:
        """Tells the watcher to end: the server stops."""
        self.closed = True
        self._news.set()


class _Channel:
    def __init__(self) -> None:
        self.watches: set[Watch] = set()
        self.subscribed = asyncio.Event()


class Hub:
    """Start it on the event loop whose coroutines watch. What changes meanwhile is forgotten by `recent`."""

    def __init__(self, url: str, recent: Recent) -> None:
        self._client = redis.asyncio.Redis.from_url(url, socket_connect_timeout=2.0)
        self._recent = recent
        self._pubsub: Any = None
        self._channels: dict[str, _Channel] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begins to listen. Redis need not be there yet."""
        self._task = asyncio.create_task(self._run(), name="hub")

    def close(self) -> None:
        """Ends every watch; new ones end at once."""
        self._closed = True
        for channel in self._channels.values():
            for watch in channel.watches:
                watch.close()

    async def aclose(self) -> None:
        """Ends every watch and the subscription."""
        self.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._client.aclose()

    @contextlib.asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watch]:
        """Watches a job. What happens after the entry wakes the watch; what happened before must be looked up."""
        watch = Watch()
        if self._closed:
            watch.close()
        name = keys.channel(job_id)
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
            await self._send("subscribe", name)
        channel.watches.add(watch)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SUBSCRIBE_SECONDS):
                    await channel.subscribed.wait()
            yield watch
        finally:
            channel.watches.discard(watch)
            if not channel.watches and self._channels.get(name) is channel:
                del self._channels[name]
                await self._send("unsubscribe", name)

    async def _send(self, command: str, name: str) -> None:
        if self._pubsub is None:
            return
        try:
            await getattr(self._pubsub, command)(name)
        except BROKEN:
            log.debug("subscription broken", command=command)  # the listener finds out too, and subscribes to all anew

    async def _run(self) -> None:
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    await pubsub.subscribe(keys.CHANGED, *self._channels)
                    self._pubsub = pubsub
                    await self._listen(pubsub)
            except BROKEN as exc:
                log.info("no live events until Redis is back", error=str(exc))
            finally:
                self._pubsub = None
                for channel in self._channels.values():
                    channel.subscribed.clear()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self, pubsub: Any) -> None:
        """Returns when the connection has been silent for two pings."""
        silent = 0
        while silent < 2:
            message = await pubsub.get_message(timeout=PING_SECONDS)
            if message is None:
                silent += 1
                await pubsub.ping()
                continue
            silent = 0
            self._dispatch(message)

    def _wake_all(self) -> None:
        for channel in self._channels.values():
            for watch in channel.watches:
                watch.notify()

    def _dispatch(self, message: dict[str, Any]) -> None:
        name = (message["channel"] or b"").decode()
        if name == keys.CHANGED:
            self._changed(message)
            return
        channel = self._channels.get(name)
        if channel is None:
            return
        if message["type"] == "subscribe":
            channel.subscribed.set()
        elif message["type"] == "message":
            event = _parse(message["data"]) if message["data"] else None
            for watch in channel.watches:
                watch.notify(event)

    def _changed(self, message: dict[str, Any]) -> None:
        """Forgets what has changed, or everything where a subscription begins: nobody told us before. It may have been
        the key of someone who watches.
        """
        self._recent.forget(message["data"].decode() if message["type"] == "message" else None)
        self._wake_all()


def _parse(data: bytes) -> Json | None:
    try:
        event = json.loads(data)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None
