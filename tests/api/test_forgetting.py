"""A user who was forgotten is nowhere: searched for, byte by byte, in Redis's files and in those of the memory."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from agent_core.types import Budget, Json
from api.settings import Settings
from jobs.agents import AgentCatalogue, Published
from jobs.link import RedisLink, connect
from jobs.moves import Attempt
from jobs.queue import queue_names
from jobs.records import JobSpec
from jobs.status import Status
from jobs.store import JobStore
from memory.session import SessionMemory, SessionScope
from memory.setup import EXTRACTION
from memory.store import COLLECTION
from tests.api.conftest import ADMIN, ECHO, client_of, serving
from tests.memory.embedded_server import EmbeddedServer
from tests.memory.embedding_server import embedding_server
from tests.redis_server import RedisServer

SECRET = "the wombat sleeps at noon"
UNCOMPRESSED = ("--appendonly", "yes", "--rdbcompression", "no", "--aof-use-rdb-preamble", "no")


@dataclass
class Place:
    """A platform whose files may be searched."""

    api: httpx2.AsyncClient
    link: RedisLink
    redis: RedisServer
    memory: EmbeddedServer

    async def files_with(self, text: str) -> set[str]:
        """Where these bytes are: in "redis" once it has written all that it holds, in "memory"."""
        await self.link.command("SAVE")
        await self.link.command("BGREWRITEAOF")
        while b"aof_rewrite_in_progress:1" in (info := await self._info()) or b"_scheduled:1" in info:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        files = [path for path in self.redis.directory.rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {"dump.rdb"}
        found = {"redis" for path in files if text.encode() in path.read_bytes()}
        return found | {"memory" for _ in self.memory.files_with(text)}

    async def memory_has_rewritten_its_files(self) -> None:
        """Returns when what was deleted may be in none of them."""
        client = self.memory.client()
        while (await client.get_collection(COLLECTION)).status != "green":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await client.close()

    async def _info(self) -> bytes:
        raw = await self.link.command("INFO", "persistence")
        lines = [f"{name}:{value}" for name, value in raw.items()] if isinstance(raw, dict) else [raw.decode()]
        return "\n".join(lines).encode()


@pytest.fixture
def folder() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="ns-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def place(folder: Path) -> AsyncIterator[Place]:
    (folder / "redis").mkdir()
    redis, memory = RedisServer(folder / "redis"), EmbeddedServer(folder / "memory")
    redis.start(*UNCOMPRESSED)
    memory.start()
    link = RedisLink(connect(redis.url))
    try:
        async with embedding_server() as embeddings:
            settings = Settings(
                redis_url=redis.url, port=0, data_dir=folder, admin_key=SecretStr(ADMIN), qdrant_url=memory.url,
                qdrant_api_key=SecretStr(memory.api_key), embedder="openai", embedder_model="m", embedder_size=2,
                embedder_url=embeddings.url, embedder_api_key=None,
            )  # fmt: skip
            async with serving(settings) as url, client_of(url) as api:
                yield Place(api, link, redis, memory)
    finally:
        await link.aclose()
        memory.kill()
        redis.kill()


async def run(link: RedisLink, agent: str, status: Status | None, user: str) -> str:
    """A job that was told the secret and said it: one that completed, or one that waits; its id."""
    store = JobStore(link)
    await AgentCatalogue(link).publish([Published(agent, "v1", {**ECHO.definition, "name": agent})])
    made = await store.submit("default", JobSpec(agent=agent, agent_version="v1", input=SECRET, user=user), Budget())
    if status == "completed":
        (claim,) = await store.tickets.claim(queue_names(["default"]), [f"{agent}@v1"], most=1, lease=30, worker="w")
        said: Json = {"content": [{"type": "text", "text": SECRET}]}
        await store.record(claim.job_id, claim.token, 1, {}, [("model.completed", said)])
        ending: Json = {"output": SECRET, "error": None}
        job = await store.get(None, claim.job_id)
        await store.move(job, "complete", ending, attempt=Attempt(claim.token, claim.queue), stop_reason="end_turn")
    return made.job.id


async def plant(place: Place, user: str) -> None:
    """Puts the secret wherever memory puts what a user says."""
    known: Json = {"user": user, "text": f"{SECRET}.", "slot": "wombat"}
    for body in (
        known,
        {"user": user, "text": f"No, {SECRET} sharp.", "slot": "wombat"},
        {"user": user, "text": f"Asked about this: {SECRET}.", "kind": "episodic"},
    ):
        made = await place.api.post("/v1/memories", json=body, headers={"Idempotency-Key": uuid.uuid4().hex})
        assert made.status_code == 201, made.text
    found = await place.api.get("/v1/memories", params={"user": user, "query": SECRET, "explain": True})
    assert len(found.json()["data"]) == 2
    sessions, scope = SessionMemory(place.link), SessionScope("default", "chat")
    assert await sessions.append(scope, 0, [{"role": "user", "content": SECRET}] * 4, user=user)
    assert await sessions.compact(scope, 0, 2, {"role": "user", "content": f"Summary: {SECRET}"})
    await run(place.link, EXTRACTION, "completed", user)


async def test_nothing_of_a_forgotten_user_is_left_in_any_file(place: Place) -> None:
    await plant(place, "ada")
    waiting = await run(place.link, EXTRACTION, None, "ada")
    kept = await place.api.post("/v1/memories", json={"user": "bob", "text": "The badger stays."})
    assert await place.files_with(SECRET) == {"redis", "memory"}
    done = await place.api.delete("/v1/memories", params={"user": "ada"})
    assert done.json() == {"forgotten": 3, "sessions": 1, "jobs": 2, "unfinished": 0}
    assert (await place.api.get(f"/v1/jobs/{waiting}")).status_code == 404
    await place.memory_has_rewritten_its_files()
    assert await place.files_with(SECRET) == set()
    assert (await place.api.get(f"/v1/memories/{kept.json()['id']}")).status_code == 200


async def test_what_jobs_were_told_goes_with_them_when_asked(place: Place) -> None:
    await run(place.link, "echo", "completed", "ada")
    assert (await place.api.delete("/v1/memories", params={"user": "ada"})).json()["jobs"] == 0
    assert await place.files_with(SECRET) == {"redis"}
    assert (await place.api.delete("/v1/memories", params={"user": "ada", "jobs": True})).json()["jobs"] == 1
    assert await place.files_with(SECRET) == set()
