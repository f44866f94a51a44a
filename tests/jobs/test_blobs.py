"""Big entries in Redis: kept once, referred to, and never visible without their content."""

from __future__ import annotations

import json

import pytest

from agent_core.errors import StaleAttemptError
from agent_core.types import Json
from jobs import actions, keys
from jobs.blobs import INLINE_BYTES, pack
from jobs.errors import ConflictError, NotFoundError
from jobs.explain import explain
from jobs.journal import dump
from jobs.records import Job
from jobs.store import JobStore
from tests.jobs.driver import TENANT, Driver

BIG = "x" * INLINE_BYTES
ROOM = INLINE_BYTES - len(dump({"content": ""}))


@pytest.fixture
def driver(store: JobStore) -> Driver:
    return Driver(store)


async def blobs(store: JobStore) -> dict[str, int]:
    """How many jobs refer to each blob, by its key."""
    found = [key.decode() for key in await store.link.command("KEYS", keys.blob("*"))]
    return {key: int(await store.link.command("HGET", key, "jobs")) for key in sorted(found)}


async def stream(store: JobStore, job: Job) -> list[Json]:
    """The data of each entry as the stream itself has it."""
    found = await store.link.command("XRANGE", keys.journal(job.id), "-", "+")
    return [json.loads(fields[b"d"]) for _, fields in found]


def result(call_id: str, content: str = BIG) -> tuple[str, Json]:
    data = {"call_id": call_id, "step": 1, "name": "read", "content": content, "is_error": False, "seconds": 0.0}
    return "tool.completed", data


@pytest.mark.parametrize(("letter", "room"), [("x", ROOM), ("é", ROOM // 2), ("\U0001f600", ROOM // 4)])
def test_what_counts_is_bytes_as_they_are_written(letter: str, room: int) -> None:
    fits, over = {"content": letter * room}, {"content": letter * (room + 1)}
    packed = pack([fits, over])
    assert packed.texts[0] == dump(fits)
    ((key, content),) = packed.blobs.items()
    assert json.loads(content) == over
    reference = json.loads(packed.texts[1])
    assert (keys.blob(reference["blob"]), reference["bytes"]) == (key, len(content))


async def test_the_stream_has_a_reference_and_readers_the_whole(store: JobStore, driver: Driver) -> None:
    job, attempt = await driver.start()
    await store.record(job.id, attempt.token, 1, {}, [result("a"), result("b", "small")])
    *_, big, small = await stream(store, job)
    assert big.keys() == {"blob", "bytes"}
    assert small["content"] == "small"
    assert [line.data["content"] for line in (await store.lines(job.id))[-2:]] == [BIG, "small"]
    assert (await explain(store, store.link, await driver.get(job)))["gate"] == "running"


async def test_a_write_that_is_repeated_counts_once_and_a_stale_one_not_at_all(store: JobStore, driver: Driver) -> None:
    job, attempt = await driver.start()
    with pytest.raises(StaleAttemptError):
        await store.record(job.id, "another", 1, {}, [result("a")])
    assert await blobs(store) == {}
    for _ in range(2):
        await store.record(job.id, attempt.token, 1, {}, [result("a"), result("a")])
    assert list((await blobs(store)).values()) == [1]


async def test_a_fork_refers_to_what_is_there(store: JobStore, driver: Driver) -> None:
    job, attempt = await driver.start()
    call = {"type": "tool_use", "id": "a", "name": "read", "input": {}}
    reply = {
        "call_id": "m", "step": 1, "model": "m", "content": [call], "stop_reason": "tool_use", "usage": None,
        "price_version": "1", "reserved": 1, "settled": 1, "reason": "usage", "seconds": 0.0,
    }  # fmt: skip
    await store.record(job.id, attempt.token, 1, {}, [("model.completed", reply), result("a")])
    forks = [(await actions.fork(store, TENANT, job.id, step=1, changes={})).job for _ in range(2)]
    assert list((await blobs(store)).values()) == [3]
    for fork in forks:
        assert (await store.lines(fork.id))[-1].data["content"] == BIG
        assert await store.link.command("MEMORY", "USAGE", keys.journal(fork.id)) < INLINE_BYTES


async def test_a_big_output_ends_a_job(store: JobStore, driver: Driver) -> None:
    job, attempt = await driver.start()
    with pytest.raises(ConflictError):
        await store.move(job, "retry", {"why": BIG})
    assert await blobs(store) == {}
    await driver.end(job, attempt, "fail", {"output": BIG, "error": {"code": "x"}})
    ended = await driver.get(job)
    assert (ended.output, ended.error) == (BIG, {"code": "x"})
    await actions.retry(store, TENANT, job.id)
    again = await driver.claim_one()
    await store.record(job.id, again.token, 1, {}, [result("a")])
    assert list((await blobs(store)).values()) == [1, 1]
    assert BIG in [line.data.get("output") for line in await store.lines(job.id)]


async def test_a_job_that_was_pruned_under_a_reader_is_not_found(store: JobStore, driver: Driver) -> None:
    job, attempt = await driver.start()
    await driver.end(job, attempt, "complete", {"output": BIG})
    (key,) = await blobs(store)
    await store.link.command("DEL", key)
    with pytest.raises(NotFoundError):
        await store.lines(job.id)
    assert await store.get_many([job.id]) == [None]
