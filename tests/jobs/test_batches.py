"""Which batches are to be looked at, and which jobs a look lets go on."""

from __future__ import annotations

import asyncio

import pytest

from agent_core.entries import Entry, ModelStarted, ModelSubmitted, entry_to_json
from jobs import actions, keys
from jobs.batches import LONGEST_MS, BatchWaits, Looked
from jobs.explain import explain
from jobs.money import FIRST_LOOK_MS, money_of
from jobs.records import Job
from jobs.store import JobStore
from tests.jobs.driver import TENANT, Driver, attempt_of

HOUR = 3_600_000


@pytest.fixture
def waits(store: JobStore) -> BatchWaits:
    return BatchWaits(store.link)


@pytest.fixture
def driver(store: JobStore) -> Driver:
    return Driver(store)


async def waiting(driver: Driver, waits: BatchWaits, batch: str = "b1", look_ms: int = 0) -> Job:
    """A job that waits for a batch as a worker leaves it."""
    job, attempt = await driver.start()
    await waits.wait(batch, job.id, look_ms)
    await driver.end(job, attempt, "hand_back", {"batch_id": batch}, due_ms=-LONGEST_MS)
    return await driver.get(job)


async def redis_ms(store: JobStore) -> int:
    seconds, micros = await store.link.command("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


async def known(store: JobStore) -> set[str]:
    return {key.decode() for key in await store.link.command("KEYS", f"{keys.BATCHES}*")} | {
        key.decode() for key in await store.link.command("KEYS", f"{keys.BATCH_PREFIX}*")
    }


async def test_a_batch_is_noted_in_the_step_that_records_it(store: JobStore, waits: BatchWaits, driver: Driver) -> None:
    job, attempt = await driver.start()
    entries: list[Entry] = [ModelStarted("c1", 1, "m", 900, 2000), ModelSubmitted("c1", 1, "b1")]
    lines = [(entry.TYPE, entry_to_json(entry)) for entry in entries]
    await store.record(job.id, attempt.token, 1, {}, lines[:1], money_of(entries[:1]))
    assert not await known(store)
    before = await redis_ms(store)
    await store.record(job.id, attempt.token, 2, {}, lines[1:], money_of(entries[1:]))
    assert await store.link.command("SMEMBERS", keys.batch("b1")) == {job.id.encode()}
    look_at = float(await store.link.command("ZSCORE", keys.BATCHES, "b1"))
    assert before <= look_at - FIRST_LOOK_MS <= await redis_ms(store)


async def test_a_waiting_job_has_no_ticket_and_its_batch_gives_it_one(waits: BatchWaits, driver: Driver) -> None:
    jobs = [await waiting(driver, waits) for _ in range(3)]
    assert await driver.tickets() == 0
    await driver.sweep()
    assert await driver.tickets() == 0
    looked = await waits.looked("b1", ended=True, look_ms=HOUR)
    assert set(looked.woken) == {job.id for job in jobs}
    assert looked.waiting == 0
    for job_id in looked.woken:
        assert await driver.store.release(job_id)
    assert {claim.job_id for claim in await driver.claim(10)} == {job.id for job in jobs}


async def test_a_woken_job_whose_waker_died_gets_its_ticket_from_a_reaper(waits: BatchWaits, driver: Driver) -> None:
    job = await waiting(driver, waits)
    await waits.looked("b1", ended=True, look_ms=HOUR)
    await driver.sweep()
    assert (await driver.claim_one()).job_id == job.id


async def test_a_batch_is_given_to_one_looker_at_a_time(waits: BatchWaits, driver: Driver) -> None:
    for batch in ("b1", "b2", "b3"):
        await waiting(driver, waits, batch)
    await waiting(driver, waits, "b4", look_ms=HOUR)
    found = await asyncio.gather(*(waits.due(2, HOUR) for _ in range(5)))
    assert sorted(batch for some in found for batch in some) == ["b1", "b2", "b3"]
    assert max(map(len, found)) == 2


async def test_a_batch_that_goes_on_is_looked_at_again(store: JobStore, waits: BatchWaits, driver: Driver) -> None:
    job = await waiting(driver, waits)
    await waits.due(1, HOUR)
    assert await waits.looked("b1", ended=False, look_ms=0) == Looked([], 1)
    assert await waits.due(1, HOUR) == ["b1"]
    assert (await driver.get(job)).status == "queued"
    assert await driver.tickets() == 0


async def test_an_earlier_look_is_not_put_off_by_a_later_waiter(waits: BatchWaits, driver: Driver) -> None:
    await waiting(driver, waits, look_ms=0)
    await waiting(driver, waits, look_ms=HOUR)
    assert await waits.due(1, HOUR) == ["b1"]


async def test_a_batch_is_forgotten_with_the_last_job_that_waits(
    store: JobStore, waits: BatchWaits, driver: Driver
) -> None:
    jobs = [await waiting(driver, waits) for _ in range(2)]
    await actions.cancel(store, TENANT, jobs[0].id)
    assert await waits.looked("b1", ended=False, look_ms=HOUR) == Looked([], 1)
    await actions.cancel(store, TENANT, jobs[1].id)
    assert await waits.looked("b1", ended=False, look_ms=HOUR) == Looked([], 0)
    assert not await known(store)


async def test_an_attempt_that_is_about_to_wait_is_not_forgotten(waits: BatchWaits, driver: Driver) -> None:
    job, attempt = await driver.start()
    await waits.wait("b1", job.id, 0)
    assert await waits.looked("b1", ended=True, look_ms=0) == Looked([], 1)
    await driver.end(job, attempt, "hand_back", due_ms=-LONGEST_MS)
    assert await waits.looked("b1", ended=True, look_ms=0) == Looked([job.id], 0)


async def test_a_paused_job_wants_its_batch_and_asks_by_itself_when_it_is_resumed(
    store: JobStore, waits: BatchWaits, driver: Driver
) -> None:
    job = await waiting(driver, waits)
    await actions.pause(store, TENANT, job.id)
    assert await waits.looked("b1", ended=False, look_ms=0) == Looked([], 1)
    assert await waits.looked("b1", ended=True, look_ms=0) == Looked([], 0)
    await actions.resume(store, TENANT, job.id)
    assert (await driver.claim_one()).job_id == job.id


async def test_a_job_that_nobody_wakes_runs_after_a_day(store: JobStore, waits: BatchWaits, driver: Driver) -> None:
    job = await waiting(driver, waits)
    due = float(await store.link.command("ZSCORE", keys.DUE, job.id))
    await store.link.command("ZADD", keys.DUE, due - LONGEST_MS, job.id)  # as if so long had passed
    await driver.sweep()
    claim = await driver.claim_one()
    assert claim.job_id == job.id
    await driver.end(job, attempt_of(claim))


async def test_what_a_job_waits_for_can_be_asked(store: JobStore, waits: BatchWaits, driver: Driver) -> None:
    job = await waiting(driver, waits, "b1", look_ms=HOUR)
    said = await explain(store, store.link, job)
    assert (said["gate"], said["batch_id"]) == ("batch", "b1")
    assert "b1" in said["detail"]
    assert said["next_at"] > said["since"]
    await waits.looked("b1", ended=True, look_ms=HOUR)
    assert (await explain(store, store.link, job))["gate"] == "no_worker"
