"""Long-term memory over each Qdrant that is at hand."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from qdrant_client import AsyncQdrantClient

from memory.client import connect
from memory.longterm import LongTermMemory
from memory.scope import Scope
from tests.memory.embedded_server import EmbeddedServer
from tests.servers import running

SERVER_URL = os.environ.get("QDRANT_TEST_URL")


class Clock:
    """Time that goes on by a second at each look, and by more when told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[EmbeddedServer]:
    """One process for all tests; each uses a collection of its own."""
    with running(EmbeddedServer) as server:
        yield server


@pytest.fixture(params=["local", "embedded", "server"])
async def qdrant(request: pytest.FixtureRequest) -> AsyncIterator[AsyncQdrantClient]:
    """A client of qdrant-client's own memory, of the embedded server, and of the one that QDRANT_TEST_URL names."""
    if request.param == "local":
        client = AsyncQdrantClient(":memory:")
    elif request.param == "embedded":
        client = request.getfixturevalue("embedded_server").client()
    elif SERVER_URL is None:
        pytest.skip("QDRANT_TEST_URL is not set")
    else:
        client = connect(SERVER_URL)
    yield client
    await client.close()


@pytest.fixture
def collection() -> str:
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scope() -> Scope:
    return Scope("acme", "ada")


@pytest.fixture
async def memory(embedded_server: EmbeddedServer, collection: str, clock: Clock) -> AsyncIterator[LongTermMemory]:
    """Long-term memory on the embedded server, without an embedder."""
    made = LongTermMemory(embedded_server.client(), collection=collection, clock=clock)
    await made.open()
    yield made
    await made.store.client.delete_collection(collection)
    await made.aclose()
