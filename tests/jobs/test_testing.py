"""What the store in memory can do beyond the one in Redis: its clock is the test's."""

from __future__ import annotations

import pytest

from agent_core.types import Budget
from jobs.errors import IdempotencyError
from jobs.moves import Idempotency
from jobs.store import IDEMPOTENCY_SECONDS
from jobs.testing import MemoryStore
from tests.jobs.driver import SPEC, TENANT, Driver, attempt_of

START_MS = 1_700_000_000_000


class Clock:
    """Ms that pass when the test says so."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms

    def pass_seconds(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(clock: Clock) -> Driver:
    return Driver(MemoryStore(clock))


async def test_a_lease_ends_by_the_clock(driver: Driver, clock: Clock) -> None:
    job, attempt = await driver.start(lease=15)
    clock.pass_seconds(15)
    assert (await driver.store.tickets.overdue()).lost == []
    assert await driver.rescue(job.id, attempt) is None
    clock.pass_seconds(0.001)
    assert (await driver.store.tickets.overdue()).lost == [(job.id, attempt.token, attempt.queue)]
    await driver.store.tickets.beat([(job.id, attempt.token, attempt.queue)], 15)
    assert (await driver.store.tickets.overdue()).lost == []
    clock.pass_seconds(15.001)
    assert await driver.rescue(job.id, attempt) is not None


async def test_the_time_spent_running_is_exact(driver: Driver, clock: Clock) -> None:
    job, attempt = await driver.start()
    clock.pass_seconds(2)
    await driver.end(job, attempt, "hand_back")
    clock.pass_seconds(100)
    claim = await driver.claim_one()
    clock.pass_seconds(0.5)
    await driver.end(job, attempt_of(claim))
    ended = await driver.get(job)
    assert (ended.ran_ms, ended.started_ms, ended.ended_ms) == (2500, START_MS, START_MS + 102_500)


async def test_times_come_when_they_come(driver: Driver, clock: Clock) -> None:
    later = await driver.submit(run_at=START_MS + 5000)
    expiring = await driver.submit(expires_at=START_MS + 5000)
    running, attempt = await driver.start(priority="high")
    await driver.end(running, attempt, "hand_back", due_ms=-5000)
    clock.pass_seconds(4.999)
    assert (await driver.store.tickets.overdue()).due == []
    clock.pass_seconds(0.001)
    found = await driver.store.tickets.overdue()
    assert (set(found.due), found.expired) == ({later.id, running.id}, [expiring.id])
    assert found.unticketed == []
    clock.pass_seconds(10)
    assert set((await driver.store.tickets.overdue()).unticketed) == {running.id, expiring.id}


async def test_an_idempotency_key_is_forgotten_after_a_day(driver: Driver, clock: Clock) -> None:
    key, other = Idempotency("d", "f"), Idempotency("d", "g")
    first = await driver.submit(key=key)
    clock.pass_seconds(IDEMPOTENCY_SECONDS - 1)
    with pytest.raises(IdempotencyError):
        await driver.submit(key=other)
    clock.pass_seconds(1)
    assert (await driver.submit(key=other)).id != first.id


async def test_a_clock_that_goes_back_does_not_disorder_the_journal(driver: Driver, clock: Clock) -> None:
    job, attempt = await driver.start()
    await driver.write(job, attempt, 1, "a")
    clock.pass_seconds(-60)
    await driver.write(job, attempt, 2, "b", "c")
    positions = [line.position for line in await driver.store.lines(job.id)]
    assert positions == sorted(set(positions))
    assert await driver.states(job) == ["a", "b", "c"]


async def test_endings_are_counted() -> None:
    store = MemoryStore()
    submitted = await store.submit(TENANT, SPEC, Budget())
    await store.move(submitted.job, "cancel")
    assert store.endings == {"jobs_total|clerk|cancelled": 1}


async def test_what_is_no_json_is_refused_as_redis_would() -> None:
    with pytest.raises(TypeError):
        await Driver(MemoryStore()).submit(input={1, 2})
