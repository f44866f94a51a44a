"""While a platform is upgraded, workers of two versions share one Redis."""

from __future__ import annotations

import pytest

from jobs import keys
from jobs.queue import serves
from jobs.records import RECORD_VERSION
from jobs.store import JobStore
from tests.jobs.driver import VERSION, Driver

NEWER = RECORD_VERSION + 1
SIDE = f"default.default@{VERSION}@{NEWER}"


async def test_a_record_that_only_newer_workers_read_is_left_to_them_and_delays_nobody(store: JobStore):
    driver = Driver(store)
    newer, ours = await driver.submit(), await driver.submit()
    await store.link.command("HSET", keys.job(newer.id), "v", NEWER)

    assert [claim.job_id for claim in await driver.claim(5)] == [ours.id]

    assert await store.tickets.side_queues() == [SIDE]
    assert (await store.tickets.depths())[SIDE] == 1
    assert await store.link.command("HGET", keys.job(newer.id), "status") == b"queued"


async def test_an_older_record_is_read_and_from_then_on_is_left_alone_by_older_workers(store: JobStore):
    driver = Driver(store)
    job = await driver.submit()
    await store.link.command("HSET", keys.job(job.id), "v", RECORD_VERSION - 1)

    claim = await driver.claim_one()

    assert claim.job is not None
    assert int(await store.link.command("HGET", keys.job(job.id), "v")) == RECORD_VERSION


@pytest.mark.parametrize(
    ("side", "taken"),
    [
        (f"default.default@{VERSION}", True),
        (f"default.default@{VERSION}@{RECORD_VERSION}", True),
        (f"default.default@{VERSION}@{NEWER}", False),
        ("default.default@clerk@2", False),
    ],
)
def test_a_worker_takes_from_the_side_queues_whose_jobs_it_can_run(side: str, taken: bool):
    assert serves({VERSION}, side) is taken
