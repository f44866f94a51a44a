"""A simulated model on a free port of loopback, and the real SDK's client for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from anthropic import AsyncAnthropic

from simulator.server import SimulatorOptions, serve

Json = dict[str, Any]


@contextlib.asynccontextmanager
async def running(options: SimulatorOptions) -> AsyncIterator[str]:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve("127.0.0.1", 0, options, listening.set_result))
    try:
        yield await listening
    finally:
        server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server


@pytest.fixture
def options() -> SimulatorOptions:
    return SimulatorOptions()


@pytest.fixture
async def url(options: SimulatorOptions) -> AsyncIterator[str]:
    async with running(options) as address:
        yield address


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=url, api_key="simulated", max_retries=0) as made:
        yield made


@pytest.fixture
async def http(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url, headers={"x-api-key": "simulated"}) as session:
        yield session


@pytest.fixture
def fetch(http: aiohttp.ClientSession) -> Callable[[str], Awaitable[Any]]:
    async def get(path: str) -> Any:
        async with http.get(path) as response:
            return await response.json()

    return get


@pytest.fixture
def scripted() -> Callable[..., Json]:
    """Makes the arguments of `messages.create` for a script with the given turns."""

    def make(*turns: Json, **script: Any) -> Json:
        text = "Please.\n#sim " + json.dumps({"turns": turns, **script})
        return {"model": "claude-sonnet-5-5", "max_tokens": 1000, "messages": [{"role": "user", "content": text}]}

    return make
