"""Entries with much data: readers get them as they were written."""

from __future__ import annotations

from jobs import actions
from jobs.blobs import INLINE_BYTES
from tests.jobs.driver import TENANT, Driver

BIG = "ü€\n" * INLINE_BYTES


async def test_a_big_entry_is_read_back_whole(driver: Driver) -> None:
    job, attempt = await driver.start()
    entries = [("state.changed", {"state": "x", "text": text}) for text in (BIG, "small", BIG)]
    assert await driver.store.record(job.id, attempt.token, 1, {}, entries) == 0
    lines = await driver.store.lines(job.id)
    assert [(line.type, line.data) for line in lines[-3:]] == entries
    assert await driver.store.lines(job.id, lines[-2].id) == lines[-1:]


async def test_a_big_end_is_the_jobs_output_and_survives_a_retry(driver: Driver) -> None:
    job, attempt = await driver.start()
    await driver.end(job, attempt, "fail", {"output": BIG, "error": {"code": "x", "message": BIG}})
    ended = await driver.get(job)
    assert ended.output == BIG
    assert ended.error == {"code": "x", "message": BIG}
    assert (await driver.store.get_many([job.id]))[0] == ended
    await actions.retry(driver.store, TENANT, job.id)
    assert (await driver.get(job)).output is None
    assert BIG in [line.data.get("output") for line in await driver.store.lines(job.id)]


async def test_a_submission_may_begin_with_big_entries(driver: Driver) -> None:
    seed = [("user.message", {"text": BIG}), ("user.message", {"text": "and more"})]
    job = await driver.submit()
    forked = await driver.store.submit(TENANT, job.spec, job.budget, seed=seed)
    assert [(line.type, line.data) for line in (await driver.store.lines(forked.job.id))[1:]] == seed
