"""The embedded memory as a process: what it refuses, what it keeps when it is killed, what is left of the forgotten."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx2
import pytest

from memory.errors import MemoryUnavailableError
from memory.longterm import LongTermMemory
from memory.points import Memory
from memory.scope import Scope
from memory.store import COLLECTION
from tests.memory.embedded_server import EmbeddedServer

ADA, BOB = Scope("acme", "ada"), Scope("acme", "bob")
ID = "3f0c9f7e-2a3c-4b89-9d53-0c1f4f1a7a11"
VECTORS = {"vectors": {"dense": {"size": 3, "distance": "Cosine"}}, "sparse_vectors": {"text": {"modifier": "idf"}}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """One that a test may kill."""
    made = EmbeddedServer(tmp_path / "memory")
    made.start()
    yield made
    made.kill()


class Http:
    """Plain requests to one collection."""

    def __init__(self, server: EmbeddedServer, collection: str) -> None:
        self._url = f"{server.url}/collections/{collection}"
        self._headers = {"api-key": server.api_key}

    def __call__(self, method: str, path: str, body: object = None, **options) -> httpx2.Response:
        given = options or {"json": body}
        return httpx2.request(method, f"{self._url}{path}", headers=self._headers, **given)


@pytest.fixture
def http(embedded_server: EmbeddedServer, collection: str) -> Iterator[Http]:
    """Of a collection with a dense and a sparse vector."""
    client = Http(embedded_server, collection)
    assert client("PUT", "", VECTORS).status_code == 200
    yield client
    client("DELETE", "")


def test_it_says_what_it_is(embedded_server: EmbeddedServer) -> None:
    about = httpx2.get(embedded_server.url).json()
    assert about["embedded"] is True
    assert "no Qdrant server" in about["title"]


def test_without_its_key_it_answers_nothing_else(embedded_server: EmbeddedServer) -> None:
    for headers in ({}, {"api-key": "wrong"}):
        answer = httpx2.get(f"{embedded_server.url}/collections", headers=headers)
        assert answer.status_code == 401
    key = embedded_server.data_dir / "api.key"
    assert key.stat().st_mode & 0o777 == 0o600


def point(**changes) -> dict:
    return {"points": [{"id": ID, "vector": {"dense": [1.0, 0.0, 0.0]}, "payload": {"n": 1}, **changes}]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/points/search", {}),
        ("POST", "/points/recommend", {}),
        ("PATCH", "", {}),
        ("GET", "/snapshots", None),
        ("PUT", "/points?wait=false", point()),
        ("PUT", "/points?ordering=strong", point()),
        ("PUT", "/points", {"batch": {"ids": [ID], "vectors": [[1.0]]}}),
        ("PUT", "/points", point(vector=[1.0, 0.0, 0.0])),
        ("PUT", "/points", {**point(), "shard_key": "a"}),
        ("POST", "/points/query", {"query": {"fusion": "rrf"}}),
        ("POST", "/points/query", {"query": [1.0, 0.0, 0.0], "using": "dense", "lookup_from": {}}),
        ("POST", "/points/query", {"query": {"formula": {"pow": {"base": 2, "exponent": 3}}}}),
        ("POST", "/points/scroll", {"filter": {"min_should": {"conditions": [], "min_count": 1}}}),
        ("POST", "/points/scroll", {"filter": {"must": [{"key": "a", "match": {"text": "x"}}]}}),
        ("POST", "/points/scroll", {"filter": {"must": [{"key": "a", "geo_radius": {}}]}}),
        ("POST", "/points/scroll", {"with_payload": {"include": ["a"]}}),
        ("POST", "/points/batch", {"operations": [{"clear_payload": {"points": [ID]}}]}),
        ("PUT", "/index", {"field_name": "a", "field_schema": "text"}),
    ],
)
def test_what_it_does_not_know_is_501(http: Http, method: str, path: str, body) -> None:
    answer = http(method, path, body)
    assert answer.status_code == 501, answer.text
    assert "embedded memory does not support" in answer.json()["status"]["error"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/points", point(vector={"dense": [1.0]})),
        ("PUT", "/points", point(vector={"other": [1.0]})),
        ("PUT", "/points", point(id="no uuid")),
        ("PUT", "/points", {"points": [{"id": ID}]}),
        ("POST", "/points/query", {"query": [1.0], "using": "dense"}),
        ("POST", "/points/query", {"query": {"formula": True}}),
        ("POST", "/points/scroll", {"order_by": "n"}),
        ("POST", "/points/scroll", {"limit": "many"}),
        ("POST", "/points/scroll", {"filter": {"must": [{"key": "a"}]}}),
        ("POST", "/points/scroll", {"filter": {"must": [{"key": "a", "match": {}}]}}),
        ("POST", "/facet", {"key": "n"}),
        ("POST", "/points/delete", {}),
        ("POST", "/points/payload", {"payload": {"a": 1}}),
        ("POST", "/points/payload", {"points": [ID], "filter": {}, "payload": {"a": 1}}),
        ("PUT", "/vectors/dense", {"dense": {"size": 4, "distance": "Cosine"}}),
        ("DELETE", "/vectors/other", None),
    ],
)
def test_what_is_wrong_is_400_and_changes_nothing(http: Http, method: str, path: str, body) -> None:
    answer = http(method, path, body)
    assert answer.status_code == 400, answer.text
    assert http("POST", "/points/count", {}).json()["result"]["count"] == 0


def test_statuses_of_bodies_and_collections(http: Http, embedded_server: EmbeddedServer) -> None:
    assert http("PUT", "/points", content=b"{").status_code == 400
    assert http("PUT", "/points", content=b"[NaN]").status_code == 400
    assert http("PUT", "", VECTORS).status_code == 409
    assert Http(embedded_server, "none")("POST", "/points/count", {}).status_code == 404
    for name in ("..%2fup", "a%20b", "x" * 101):
        assert Http(embedded_server, name)("PUT", "", VECTORS).status_code in (400, 501), name


def test_a_second_process_on_the_same_data_ends_at_once(embedded_server: EmbeddedServer) -> None:
    command = [sys.executable, "-m", "memory.embedded", "--data-dir", str(embedded_server.data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "--data-dir" in done.stderr


def test_a_refused_write_is_not_in_the_way_of_a_restart(server: EmbeddedServer) -> None:
    http = Http(server, "c")
    http("PUT", "", VECTORS)
    assert http("PUT", "/points", point()).status_code == 200
    assert http("PUT", "/points", point(vector={"dense": [1.0]})).status_code == 400
    server.kill()
    server.start()
    [found] = Http(server, "c")("POST", "/points/scroll", {"with_vector": True}).json()["result"]["points"]
    assert found == {"id": ID, "payload": {"n": 1}, "vector": {"dense": [1.0, 0.0, 0.0]}}


async def write_until_killed(server: EmbeddedServer, seconds: float, writers: int = 4) -> list[Memory]:
    """Remembers as fast as it goes until the server dies, each second fact in a slot; what was acknowledged."""
    acknowledged: list[Memory] = []
    memory = LongTermMemory(server.client())
    await memory.open()
    life = uuid.uuid4().hex

    async def write(writer: int) -> None:
        for number in count():
            # A slot has the same facts in every life: they become current again.
            slot, of = (f"writer.{writer}", "") if number % 2 else (None, life)
            try:
                kept = await memory.remember(ADA, f"Fact {writer} {number} {of}", slot=slot)
            except MemoryUnavailableError:
                return
            acknowledged.append(kept)

    async def kill() -> None:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.kill)

    await asyncio.gather(kill(), *map(write, range(writers)))
    await memory.aclose()
    return acknowledged


async def lost(server: EmbeddedServer, acknowledged: list[Memory]) -> list[Memory]:
    """What is not there any more, or is not current though nothing was said later in its slot."""
    memory = LongTermMemory(server.client())
    found = [each async for each in memory.store.all(ADA.within())]
    facts = await memory.get_user_facts(ADA)
    await memory.aclose()
    there = {each.id: each for each in found}
    assert len(there) == len(found)
    current = {each.slot: each.order for each in found if each.slot and facts.get(each.slot) == each.text}
    return [
        each
        for each in acknowledged
        if each.id not in there
        or (each.slot is not None and (each.slot not in current or current[each.slot] < each.order))
    ]


async def test_what_was_acknowledged_outlives_a_kill(server: EmbeddedServer) -> None:
    acknowledged: list[Memory] = []
    for seconds in (0.2, 0.5):
        acknowledged += await write_until_killed(server, seconds)
        await asyncio.to_thread(server.start)
        assert await lost(server, acknowledged) == []
    assert len(acknowledged) > 5
    assert server.stop() == 0
    server.start()
    assert await lost(server, acknowledged) == []


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_what_was_acknowledged_outlives_many_kills(server: EmbeddedServer) -> None:
    acknowledged: list[Memory] = []
    for round in range(20):
        acknowledged += await write_until_killed(server, 0.3 + 0.13 * round, writers=8)
        await asyncio.to_thread(server.start)
        assert await lost(server, acknowledged) == []
    print(f"{len(acknowledged)} acknowledged over 20 kills, 0 lost")


async def purged(memory: LongTermMemory) -> None:
    """Returns when the server says that there is no more to rewrite."""
    while (await memory.store.client.get_collection(COLLECTION)).status != "green":  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def test_what_is_forgotten_leaves_the_files(server: EmbeddedServer) -> None:
    memory = LongTermMemory(server.client())
    await memory.open()
    for number in range(30):
        await memory.remember(ADA, f"The wombat {number} is secret.", slot=f"wombat.{number % 3}", keywords=["wombat"])
        await memory.remember(BOB, f"The badger {number} stays.")
    assert await asyncio.to_thread(server.files_with, "wombat")
    assert await memory.forget_user(ADA) == 30
    assert await memory.browse(ADA, past=True) == []
    await purged(memory)
    assert await asyncio.to_thread(server.files_with, "wombat") == []
    assert len(await memory.recall(BOB, "badger", k=50)) == 30
    kept = await memory.remember(BOB, "The ferret comes later.")
    await memory.aclose()
    server.kill()
    server.start()
    again = LongTermMemory(server.client())
    await again.open()
    assert await again.get(BOB, kept.id) == kept
    assert await again.store.count(BOB.within()) == 31
    await again.aclose()


async def test_a_kill_before_the_files_are_rewritten_only_delays_that(server: EmbeddedServer) -> None:
    memory = LongTermMemory(server.client())
    await memory.open()
    await memory.remember(ADA, "The wombat is secret.")
    await memory.remember(BOB, "The badger stays.")
    await memory.forget_user(ADA)
    await memory.aclose()
    server.kill()
    server.start()
    again = LongTermMemory(server.client())
    await purged(again)
    assert await asyncio.to_thread(server.files_with, "wombat") == []
    assert [each.text for each in await again.browse(BOB)] == ["The badger stays."]
    await again.aclose()


async def test_when_it_is_away_memory_says_so(server: EmbeddedServer) -> None:
    memory = LongTermMemory(server.client())
    await memory.open()
    server.kill()
    with pytest.raises(MemoryUnavailableError, match="not available"):
        await memory.recall(ADA, "tea")
    with pytest.raises(MemoryUnavailableError):
        await memory.open()
    await memory.aclose()
