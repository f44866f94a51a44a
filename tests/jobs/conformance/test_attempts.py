"""Attempts: their leases, their numbered writes, and the token without which nothing of them is accepted."""

from __future__ import annotations

import asyncio

import pytest

from jobs.errors import StaleAttemptError
from jobs.link import milliseconds
from jobs.moves import Attempt
from tests.jobs.driver import ENDED_LEASE, HOUR_MS, Driver, attempt_of

STRANGER = Attempt("f" * 32, "default.default")


async def refused_everywhere(driver: Driver, job, attempt: Attempt) -> None:
    """Neither a write nor a move of this attempt is accepted, and neither leaves a trace."""
    before, lines = await driver.get(job), await driver.store.lines(job.id)
    with pytest.raises(StaleAttemptError):
        await driver.write(job, attempt, 99, "zombie", cost=1)
    for action in ("complete", "fail", "stop", "park", "suspend", "hand_back"):
        with pytest.raises(StaleAttemptError):
            await driver.end(job, attempt, action)
    assert await driver.get(job) == before
    assert await driver.store.lines(job.id) == lines


async def test_a_token_that_was_never_given_out_is_refused(driver: Driver) -> None:
    job, _ = await driver.start()
    await refused_everywhere(driver, job, STRANGER)


@pytest.mark.parametrize("action", ["complete", "fail", "stop", "park", "suspend", "hand_back"])
async def test_a_token_is_worth_nothing_after_its_attempt(driver: Driver, action: str) -> None:
    job, attempt = await driver.start()
    await driver.end(job, attempt, action)
    await refused_everywhere(driver, job, attempt)


async def test_a_rescued_attempt_is_refused_also_while_the_next_one_runs(driver: Driver) -> None:
    job, attempt = await driver.start(lease=ENDED_LEASE)
    await driver.rescue(job.id, attempt)
    await refused_everywhere(driver, job, attempt)
    second = await driver.claim_one()
    assert second.token != attempt.token
    await refused_everywhere(driver, job, attempt)
    await driver.write(job, attempt_of(second), 1, "mine")
    await driver.end(job, attempt_of(second))
    assert await driver.states(job) == ["mine"]
    assert await driver.status(job) == "completed"


async def test_a_repeated_write_changes_nothing(driver: Driver) -> None:
    job, attempt = await driver.start()
    for number, text in ((1, "a"), (1, "a"), (2, "b"), (1, "a"), (2, "b"), (3, "c")):
        assert await driver.write(job, attempt, number, text, cost=5, tool_calls=1) == 0
    assert await driver.states(job) == ["a", "b", "c"]
    counters = (await driver.get(job)).counters
    assert (counters["cost"], counters["tool_calls"], counters["model_calls"]) == (15, 3, 0)


async def test_each_attempt_numbers_its_writes_anew(driver: Driver) -> None:
    job, attempt = await driver.start()
    await driver.write(job, attempt, 1, "a", reserved=7)
    await driver.end(job, attempt, "hand_back")
    second = attempt_of(await driver.claim_one())
    await driver.write(job, second, 1, "b", reserved=-7)
    assert await driver.states(job) == ["a", "b"]
    assert (await driver.get(job)).counters["reserved"] == 0
    attempts = [line.attempt for line in await driver.store.lines(job.id)]
    assert attempts == [0, 1, 1, 1, 2, 2]


async def test_an_ended_lease_is_found_and_rescued_exactly_once_among_ten_reapers(driver: Driver) -> None:
    job, attempt = await driver.start(lease=ENDED_LEASE)
    assert (await driver.store.tickets.overdue()).lost == [(job.id, attempt.token, attempt.queue)]
    results = await asyncio.gather(*(driver.rescue(job.id, attempt) for _ in range(10)), return_exceptions=True)
    assert len([r for r in results if not isinstance(r, BaseException)]) == 1
    assert all(isinstance(r, StaleAttemptError) for r in results if isinstance(r, BaseException))
    assert (await driver.types(job)).count("job.rescued") == 1
    assert await driver.tickets() == 1
    assert (await driver.get(job)).lost == 1
    assert (await driver.store.tickets.overdue()).lost == []


async def test_a_live_lease_is_left_alone(driver: Driver) -> None:
    job, attempt = await driver.start()
    assert (await driver.store.tickets.overdue()).lost == []
    assert await driver.rescue(job.id, attempt) is None
    assert await driver.get(job) == job


async def test_a_beat_renews_a_lease_even_one_that_has_just_ended(driver: Driver) -> None:
    job, attempt = await driver.start(lease=ENDED_LEASE)
    assert await driver.store.tickets.beat([(job.id, attempt.token, attempt.queue)], 60) == [0]
    assert (await driver.store.tickets.overdue()).lost == []
    assert await driver.rescue(job.id, attempt) is None


async def test_a_beat_tells_each_attempt_how_it_stands(driver: Driver) -> None:
    started = [await driver.start(priority=priority) for priority in ("high", "default", "low")]
    gone, to_cancel, to_pause = started
    await driver.end(*gone)
    await driver.store.flag(to_cancel[0], "cancel")
    await driver.store.flag(to_pause[0], "pause")
    members = [(job.id, attempt.token, attempt.queue) for job, attempt in started]
    assert await driver.store.tickets.beat([*members, ("job_none", "x", "default.low")], 60) == [-1, 1, 2, -1]


async def test_a_lost_job_is_counted_and_buried_by_the_same_rules(driver: Driver) -> None:
    job, attempt = await driver.start(lease=ENDED_LEASE)
    for lost in (1, 2):
        await driver.rescue(job.id, attempt)
        assert (await driver.get(job)).lost == lost
        attempt = attempt_of(await driver.claim_one(lease=ENDED_LEASE))
    await driver.end(job, attempt, "bury", stop_reason="error", if_lease_ended=True, lost=True)
    buried = await driver.get(job)
    assert (buried.status, buried.lost, buried.stop_reason, buried.attempts) == ("failed", 3, "error", 3)


async def test_a_rescued_job_comes_first_in_its_queue(driver: Driver) -> None:
    job, attempt = await driver.start(lease=ENDED_LEASE)
    other = await driver.submit()
    await driver.rescue(job.id, attempt)
    assert [c.job_id for c in await driver.claim(2)] == [job.id, other.id]


async def test_a_deferred_job_has_no_ticket_before_its_time(driver: Driver) -> None:
    job, attempt = await driver.start()
    await driver.end(job, attempt, "hand_back", due_ms=-HOUR_MS)
    assert await driver.status(job) == "queued"
    await driver.sweep()
    assert not await driver.store.release(job.id)
    assert await driver.claim(5) == []
    assert (await driver.store.tickets.overdue()).due == []
    await driver.store.undefer(job.id)
    assert await driver.store.release(job.id)
    assert (await driver.claim_one()).job_id == job.id


@pytest.mark.parametrize("due_ms", [-1, 1])
async def test_a_deferral_that_is_over_is_found(driver: Driver, due_ms: int) -> None:
    job, attempt = await driver.start()
    await driver.end(job, attempt, "hand_back", due_ms=due_ms)
    while (await driver.store.tickets.overdue()).due != [job.id]:
        pass
    await driver.sweep()
    assert (await driver.claim_one()).job_id == job.id


async def test_an_old_ticket_does_not_cut_a_deferral_short(driver: Driver) -> None:
    job = await driver.into("running", spare_ticket=True)
    await driver.end(job, Attempt(job.token, job.queue), "hand_back", due_ms=-HOUR_MS)
    assert await driver.claim(5) == []
    assert await driver.status(job) == "queued"


@pytest.mark.parametrize(("flag", "number"), [("cancel", 1), ("pause", 2)])
async def test_what_was_asked_of_an_attempt_outlives_a_hand_back_and_a_rescue(
    driver: Driver, flag: str, number: int
) -> None:
    job, attempt = await driver.start()
    assert await driver.store.flag(job, flag) == "w1"
    assert await driver.write(job, attempt, 1, "a") == number
    await driver.end(job, attempt, "hand_back")
    assert (await driver.get(job)).flag == flag
    second = await driver.claim_one(lease=ENDED_LEASE)
    assert second.job is not None
    assert second.job.flag == flag
    await driver.rescue(job.id, attempt_of(second))
    assert (await driver.get(job)).flag == flag


async def test_nothing_is_asked_of_a_job_that_does_not_run(driver: Driver) -> None:
    job = await driver.submit()
    assert await driver.store.flag(job, "pause") is None
    assert (await driver.get(job)).flag is None


async def test_a_pause_is_done_with_when_the_job_is_paused(driver: Driver) -> None:
    job, attempt = await driver.start()
    await driver.store.flag(job, "pause")
    await driver.end(job, attempt, "hand_back")
    await driver.store.move(job, "pause")
    await driver.store.move(job, "resume")
    claim = await driver.claim_one()
    assert claim.job is not None
    assert claim.job.flag is None


async def test_a_cancel_is_done_with_when_the_job_has_ended(driver: Driver) -> None:
    job, attempt = await driver.start()
    await driver.store.flag(job, "cancel")
    await driver.end(job, attempt, "hand_back")
    await driver.store.move(job, "cancel")
    await driver.store.move(await driver.get(job), "retry")
    claim = await driver.claim_one()
    assert claim.job is not None
    assert claim.job.flag is None


@pytest.mark.parametrize("action", ["park", "suspend"])
async def test_a_cancel_wins_over_an_attempt_that_goes_to_rest_at_that_moment(driver: Driver, action: str) -> None:
    job, attempt = await driver.start()
    await driver.store.flag(job, "cancel")
    await driver.end(job, attempt, action)
    ended = await driver.get(job)
    assert (ended.status, ended.stop_reason, ended.flag) == ("cancelled", "cancelled", None)


async def test_the_time_spent_running_adds_up_over_attempts(driver: Driver) -> None:
    job, attempt = await driver.start()
    since = job.since_ms
    assert since is not None
    while milliseconds() <= since + 2:
        pass
    await driver.end(job, attempt, "hand_back")
    first = (await driver.get(job)).ran_ms
    claim = await driver.claim_one()
    assert claim.job is not None
    assert (claim.job.ran_ms, claim.job.started_ms) == (first, job.started_ms)
    again = milliseconds()
    while milliseconds() <= again + 2:
        pass
    await driver.end(job, attempt_of(claim))
    assert 2 <= first < (await driver.get(job)).ran_ms
