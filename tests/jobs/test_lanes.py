"""What lanes leave in Redis, and what they cost it."""

from __future__ import annotations

import pytest

from jobs import keys, queue, queue_keys
from jobs.lanes import lane_of, side_queue
from jobs.limits import LimitBook
from jobs.moves import Attempt
from jobs.store import JobStore
from tests.jobs.driver import SPEC, TENANT, Driver, attempt_of, push_raw

LANE = "default.default~acme"


@pytest.fixture
def driver(store: JobStore) -> Driver:
    return Driver(store)


def test_names_of_lanes():
    assert lane_of("default.high", "acme") == "default.high~acme"
    side = side_queue("default.default", SPEC)
    assert lane_of(side, "a-b") == side_queue("default.default~a-b", SPEC) == "default.default~a-b@clerk@1"


async def test_a_lane_is_taken_off_the_list_of_queues_once_nothing_is_in_it(store: JobStore, driver: Driver) -> None:
    job = await driver.submit()
    for _ in range(2):
        await store.tickets.overdue()
        assert await store.tickets.names() == ["default.default", LANE]
        claims = await driver.claim()
    await driver.submit(concurrency={"key": "k", "limit": 1})
    await driver.submit(concurrency={"key": "k", "limit": 1})
    held, *_ = [*await driver.claim(), *await driver.claim(), *claims]
    await store.tickets.overdue()
    assert LANE in await store.tickets.names(), "a limit holds a ticket back"
    await driver.end(held.job or job, attempt_of(held))
    (last,) = await driver.claim()
    first = await driver.get(job)
    for running, attempt in ((first, Attempt(first.token, first.queue)), (last.job, attempt_of(last))):
        await store.tickets.overdue()
        assert LANE in await store.tickets.names(), "a job runs"
        assert running is not None
        await driver.end(running, attempt)
    await store.tickets.overdue()
    assert await store.tickets.names() == ["default.default"]
    assert await store.tickets.depths() == {"default.default": 0}
    found = {key.decode() for key in await store.link.command("KEYS", "*")}
    lanes = (queue_keys.ROTATION_PREFIX, queue_keys.RUNNING_PREFIX, queue_keys.WAITING_PREFIX)
    assert not [key for key in found if key.startswith((*lanes, queue_keys.HELD_BACK_PREFIX, queue_keys.WAITS))]


async def test_a_claim_looks_at_so_many_tickets_and_asks_to_be_called_again(
    store: JobStore, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MOST_LOOKS", 3)
    await driver.submit(concurrency={"key": "k", "limit": 1})
    for _ in range(5):
        await driver.submit(concurrency={"key": "k", "limit": 1})
    free = await driver.submit()
    await store.link.command("DEL", keys.wake("default"))
    assert len(await driver.claim(10)) == 1
    assert await store.link.command("LLEN", keys.wake("default")) == 1
    (claim,) = [claim for _ in range(2) for claim in await driver.claim(10)]
    assert claim.job_id == free.id


async def test_old_tickets_are_sorted_within_the_same_bounds(
    store: JobStore, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [await driver.submit() for _ in range(5)]
    await store.link.command("DEL", queue_keys.queue(LANE))
    for job in jobs:
        await push_raw(driver, job)
    monkeypatch.setattr(queue, "MOST_LOOKS", 4)
    claimed = [claim.job_id for _ in range(5) for claim in await driver.claim(10)]
    assert claimed == [job.id for job in jobs]


async def test_a_damaged_record_is_set_aside_wherever_its_ticket_is(store: JobStore, driver: Driver) -> None:
    await LimitBook(store.link).put(TENANT, "tenant", {"running": 5})
    jobs = [await driver.submit() for _ in range(3)]
    await push_raw(driver, jobs[0])
    await store.link.command("SET", keys.job(jobs[0].id), "rubbish")
    await store.link.command("HDEL", keys.job(jobs[1].id), "tenant")
    claims = await driver.claim(10)
    assert {claim.job_id for claim in claims if claim.job is None} == {jobs[0].id, jobs[1].id}
    assert [claim.job_id for claim in claims if claim.job is not None] == [jobs[2].id]


async def test_a_lane_whose_only_ticket_is_held_stays_on_the_list(store: JobStore, driver: Driver) -> None:
    one_at_a_time = {"key": "k", "limit": 1}
    await driver.start(priority="high", concurrency=one_at_a_time)
    await driver.submit(concurrency=one_at_a_time)
    assert await driver.claim() == []
    await store.tickets.overdue()
    assert (await store.tickets.depths())["default.default"] == 1


async def test_a_slot_that_comes_back_wakes_an_idle_worker(store: JobStore, driver: Driver) -> None:
    job, attempt = await driver.start(concurrency={"key": "k", "limit": 1})
    await driver.submit(concurrency={"key": "k", "limit": 1}, pool="gpu")
    assert await driver.claim(queues=["gpu.default"]) == []
    await store.link.command("DEL", keys.wake("gpu"))
    await driver.end(job, attempt)
    assert await store.link.command("LLEN", keys.wake("gpu")) == 1
