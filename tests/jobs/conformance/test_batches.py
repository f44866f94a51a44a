"""A call that a batch has stays reserved, whatever becomes of its attempts, until it is settled or the job ends."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core.entries import Entry, ModelCompleted, ModelStarted, ModelSubmitted, entry_to_json
from agent_core.types import Json
from jobs.money import money_of
from jobs.moves import Attempt
from jobs.records import Job
from tests.jobs.driver import ENDED_LEASE, Driver, attempt_of

STARTED = ModelStarted("c1", 1, "m", 900, 2000, 512, "p")
SUBMITTED = ModelSubmitted("c1", 1, "b1")
USED: Json = {"input_tokens": 100, "output_tokens": 20}
COMPLETED = ModelCompleted("c1", 1, "m", [], "end_turn", USED, "p", 900, 70, "settled")


async def write(driver: Driver, job: Job, attempt: Attempt, number: int, entry: Entry) -> None:
    lines = [(entry.TYPE, entry_to_json(entry))]
    await driver.store.record(job.id, attempt.token, number, {}, lines, money_of([entry]))


async def start(driver: Driver, *entries: Entry, **how: Any) -> tuple[Job, Attempt]:
    job, attempt = await driver.start(**how)
    for number, entry in enumerate(entries, 1):
        await write(driver, job, attempt, number, entry)
    return job, attempt


async def money(driver: Driver, job: Job) -> tuple[int, int]:
    """Reserved and settled."""
    counters = (await driver.get(job)).counters
    assert (counters["held"], counters["spent"]) == (counters["reserved"], counters["cost"])
    return counters["reserved"], counters["cost"]


async def failed(driver: Driver, job: Job) -> list[Json]:
    return [line.data for line in await driver.store.lines(job.id) if line.type == "model.failed"]


@pytest.mark.parametrize("action", ["hand_back", "suspend", "park"])
async def test_a_call_that_a_batch_has_outlives_the_attempt(driver: Driver, action: str) -> None:
    job, attempt = await start(driver, STARTED, SUBMITTED)
    await driver.end(job, attempt, action)
    assert await money(driver, job) == (900, 0)
    assert await failed(driver, job) == []


async def test_it_outlives_a_lost_worker_and_is_settled_once_by_whoever_fetches_it(driver: Driver) -> None:
    job, attempt = await start(driver, STARTED, SUBMITTED, lease=ENDED_LEASE)
    await driver.rescue(job.id, attempt)
    assert await money(driver, job) == (900, 0)
    second = attempt_of(await driver.claim_one())
    for number in (1, 2):
        await write(driver, job, second, number, COMPLETED)
    assert await money(driver, job) == (0, 70)
    await driver.end(job, second)
    assert await money(driver, job) == (0, 70)


async def test_a_call_of_which_no_batch_was_noted_is_settled_at_its_worst(driver: Driver) -> None:
    job, attempt = await start(driver, STARTED)
    await driver.end(job, attempt, "hand_back")
    assert await money(driver, job) == (0, 900)
    (line,) = await failed(driver, job)
    assert (line["call_id"], line["reason"], line["settled"]) == ("c1", "worst_case", 900)


@pytest.mark.parametrize("waiting", [True, False])
async def test_the_end_of_the_job_settles_it_at_its_worst(driver: Driver, waiting: bool) -> None:
    job, attempt = await start(driver, STARTED, SUBMITTED)
    if waiting:
        await driver.end(job, attempt, "hand_back")
        await driver.store.move(await driver.get(job), "cancel", stop_reason="cancelled")
    else:
        await driver.end(job, attempt, "stop")
    assert await money(driver, job) == (0, 900)
    (line,) = await failed(driver, job)
    assert (line["code"], line["reason"]) == ("lost", "worst_case")


async def test_a_call_that_is_settled_already_is_not_submitted_again(driver: Driver) -> None:
    job, attempt = await start(driver, STARTED, SUBMITTED, COMPLETED, SUBMITTED)
    await driver.end(job, attempt, "hand_back")
    assert await money(driver, job) == (0, 70)
