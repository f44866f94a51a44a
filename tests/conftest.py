"""What every test may ask for: a real Redis, empty at the start of each test, and the job store on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from jobs.link import RedisLink, connect
from jobs.store import JobStore
from tests.receiver import Receiver
from tests.redis_server import RedisServer
from tests.servers import running


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests of this process."""
    with running(RedisServer) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The server's URL; it is empty."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for one test alone, which may stop, kill and fill it."""
    with running(RedisServer) as server:
        yield server


@pytest.fixture
def guarded_redis(redis_url: str) -> Iterator[str]:
    """The URL of a Redis that wants a password, which the URL does not have."""
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("requirepass", "right")
        try:
            yield redis_url
        finally:
            client.execute_command("AUTH", "right")
            client.config_set("requirepass", "")


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    """A link to the empty Redis."""
    link = RedisLink(connect(redis_url))
    yield link
    await link.aclose()


@pytest.fixture
def store(link: RedisLink) -> JobStore:
    """The job store on the empty Redis."""
    return JobStore(link)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web server that takes down what is posted to it."""
    made = Receiver()
    yield made
    made.close()
