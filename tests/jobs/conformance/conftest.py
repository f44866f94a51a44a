"""Every test in this folder runs twice: on the job store in memory and on the one in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jobs.link import RedisLink, connect
from jobs.ports import Store
from jobs.store import JobStore
from jobs.testing import MemoryStore
from tests.jobs.driver import Driver


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    link = RedisLink(connect(redis_url))
    yield JobStore(link)
    await link.aclose()


@pytest.fixture
def driver(store: Store) -> Driver:
    return Driver(store)
