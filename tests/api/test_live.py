"""The hub over a connection that breaks under its hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from api.live import Hub
from jobs import keys
from jobs.link import RedisLink
from jobs.recent import Recent
from tests.api.conftest import until


@pytest.fixture
async def hub(redis_url: str) -> AsyncIterator[Hub]:
    hub = Hub(redis_url, Recent())
    hub.start()
    yield hub
    await hub.aclose()


async def trip(*_: object, **__: object) -> None:
    """What redis-py does when the listener has closed the connection between two of its own steps."""
    raise AttributeError("'NoneType' object has no attribute 'writelines'")


@pytest.mark.parametrize("command", ["subscribe", "unsubscribe"])
async def test_a_connection_that_was_just_closed_is_no_fault_of_the_watcher(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, command: str
):
    async def listening() -> bool:
        return hub._pubsub is not None

    await until(listening)
    monkeypatch.setattr(hub._pubsub, command, trip)
    async with hub.watch("job_1"):
        pass
    assert hub._channels == {}


async def test_the_listener_outlives_it_and_hears_again(hub: Hub, link: RedisLink, monkeypatch: pytest.MonkeyPatch):
    async def listening() -> bool:
        return hub._pubsub is not None

    await until(listening)
    first = hub._pubsub
    monkeypatch.setattr(first, "get_message", trip)
    async with hub.watch("job_1") as watch:

        async def another() -> bool:
            return hub._pubsub not in (None, first)

        await link.command("PUBLISH", keys.channel("job_1"), "")  # ends the message that is waited for
        await until(another)
        await watch.wait()
        news = asyncio.create_task(watch.wait(timeout=20))
        await link.command("PUBLISH", keys.channel("job_1"), '{"type": "message.delta"}')
        assert await news == [{"type": "message.delta"}]
