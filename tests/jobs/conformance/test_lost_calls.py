"""What becomes of open calls when their attempt leaves the job: nobody will settle them, so the store does."""

from __future__ import annotations

import asyncio

import pytest

from agent_core.entries import ModelSubmitted
from agent_core.errors import StaleAttemptError
from agent_core.types import Budget
from jobs import actions
from jobs.money import Money
from jobs.moves import Hold
from jobs.records import Job
from tests.jobs.books import check, limit, rows_of
from tests.jobs.driver import ENDED_LEASE, TENANT, Driver, attempt_of
from tests.jobs.spender import Spender, write

LEAVING = ["rescue", "bury", "stop", "hand_back", "complete", "fail", "park", "suspend", "hold"]
STAYING = ["rescue", "hand_back", "park", "suspend", "hold"]
"""Moves after which the job is not at its end."""
UNLIMITED = Budget(usd=None)


async def leave(driver: Driver, spending: Spender, action: str) -> Job:
    """Takes the job from its attempt, as a reaper or the attempt itself does."""
    hold = Hold("tenant|total") if action == "hold" else None
    lost = action in ("rescue", "bury")
    await driver.store.move(spending.job, action, attempt=spending.attempt, if_lease_ended=lost, lost=lost, hold=hold)
    return await driver.get(spending.job)


async def spender(driver: Driver) -> Spender:
    return await Spender.start(driver.store, lease=ENDED_LEASE, budget=UNLIMITED, user="u1", session_id="s1")


async def submitted(spending: Spender, call_id: str) -> None:
    """A batch has the call."""
    spending.written += 1
    entry = ModelSubmitted(call_id, 1, "msgbatch_1")
    await write(spending.store, spending.job.id, spending.attempt.token, spending.written, entry)


async def next_attempt(driver: Driver, job: Job) -> Spender:
    claim = await driver.claim_one()
    assert claim.job_id == job.id
    return Spender(driver.store, job, attempt_of(claim))


@pytest.mark.parametrize("action", LEAVING)
async def test_an_open_call_is_settled_at_its_worst_case_and_gets_its_row(driver: Driver, action: str) -> None:
    spending = await spender(driver)
    await spending.spend(70)
    call = await spending.begin(reserved=900, tokens=2000, model="m2", role="planner")
    job = await leave(driver, spending, action)
    books = await check(driver, job)
    assert books.meters["tenant", "total"] == {"settled": 970, "settled_tokens": 2427}
    assert books.records[job.id] == {"cost": 970, "spent": 970, "spent_tokens": 2427}
    _, row = await rows_of(driver, job)
    assert {name: row[name] for name in ("id", "attempt", "step", "model", "role", "usage", "price_version")} == {
        "id": call, "attempt": 1, "step": 1, "model": "m2", "role": "planner", "usage": None, "price_version": "p",
    }  # fmt: skip
    assert (row["reserved_usd"], row["settled_usd"], row["reason"]) == ("0.0009", "0.0009", "worst_case")
    *_, lost, last = await driver.store.lines(job.id)
    assert (lost.type, lost.data["code"]) == ("model.failed", "lost")
    assert lost.position < last.position, "it is told before the move"
    assert job.counters["model_calls"] == 1


@pytest.mark.parametrize("action", LEAVING)
async def test_an_open_call_of_an_embedding_model_is_settled_as_one(driver: Driver, action: str) -> None:
    spending = await spender(driver)
    about = {"call_id": "emb_1", "step": 0, "model": "e", "role": "embedding", "reserved": 30, "tokens": 200}
    about["price_version"] = "p"
    lines, money = [("embedding.started", about)], Money(reserve=[about])
    await driver.store.record(spending.job.id, spending.attempt.token, 1, {}, lines, money)
    job = await leave(driver, spending, action)
    books = await check(driver, job)
    assert books.records[job.id] == {"cost": 30, "spent": 30, "spent_tokens": 200}
    [row] = await rows_of(driver, job)
    assert (row["kind"], row["role"], row["reason"], row["usage"]) == ("embedding", "embedding", "worst_case", None)
    assert job.counters["model_calls"] == 0
    assert "embedding.completed" in await driver.types(job)


@pytest.mark.parametrize("action", LEAVING)
async def test_without_an_open_call_nothing_is_settled(driver: Driver, action: str) -> None:
    spending = await spender(driver)
    await spending.spend(70)
    before = await check(driver, spending.job)
    job = await leave(driver, spending, action)
    assert await check(driver, job) == before
    assert "model.failed" not in await driver.types(job)


async def test_all_open_calls_are_settled(driver: Driver) -> None:
    spending = await spender(driver)
    for reserved in (900, 500, 30):
        await spending.begin(reserved=reserved, tokens=100)
    job = await leave(driver, spending, "rescue")
    books = await check(driver, job)
    assert books.records[job.id] == {"cost": 1430, "spent": 1430, "spent_tokens": 300}
    assert (await driver.types(job)).count("model.failed") == 3


async def test_ten_reapers_settle_a_call_once(driver: Driver) -> None:
    spending = await spender(driver)
    await spending.begin()
    await asyncio.gather(*(driver.rescue(spending.job.id, spending.attempt) for _ in range(10)), return_exceptions=True)
    books = await check(driver, spending.job)
    assert books.meters["tenant", "total"]["settled"] == 900
    assert (await driver.types(spending.job)).count("model.failed") == 1


async def test_a_settlement_that_comes_too_late_is_refused(driver: Driver) -> None:
    spending = await spender(driver)
    call = await spending.begin()
    job = await leave(driver, spending, "rescue")
    before = await check(driver, job)
    with pytest.raises(StaleAttemptError):
        await spending.end(call, settled=70)
    again = await next_attempt(driver, job)
    await again.begin()
    with pytest.raises(StaleAttemptError):
        await spending.end(call, settled=70)
    assert (await check(driver, job)).records[job.id]["spent"] == before.records[job.id]["spent"] == 900


async def test_a_live_lease_keeps_its_reservation(driver: Driver) -> None:
    spending = await Spender.start(driver.store)
    call = await spending.begin()
    assert await driver.rescue(spending.job.id, spending.attempt) is None
    await spending.end(call, settled=70)
    await check(driver, spending.job)


async def test_a_lost_call_that_passes_a_share_of_a_limit_says_so(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "user:u1", 1000)
    await spending.begin(reserved=1000)
    job = await leave(driver, spending, "rescue")
    *_, first, second, last = await driver.store.lines(job.id)
    assert [(line.type, line.data.get("percent")) for line in (first, second, last)] == [
        ("budget.reached", 80),
        ("budget.reached", 100),
        ("job.rescued", None),
    ]
    assert {line.attempt for line in (first, second, last)} == {1}


# ---- what a batch has


@pytest.mark.parametrize("action", STAYING)
async def test_what_a_batch_has_stays_reserved_until_the_job_goes_on(driver: Driver, action: str) -> None:
    spending = await spender(driver)
    call, other = await spending.begin(reserved=900), await spending.begin(reserved=30)
    await submitted(spending, call)
    job = await leave(driver, spending, action)
    books = await check(driver, job)
    assert (books.records[job.id]["reserved"], books.records[job.id]["cost"]) == (900, 30)
    assert {row["id"]: row["reason"] for row in await rows_of(driver, job)} == {call: "reserved", other: "worst_case"}
    if action == "park":
        await driver.store.move(job, "decide")
    elif action in ("suspend", "hold"):
        await driver.store.move(job, "resume")
    again = await next_attempt(driver, job)
    await again.end(call, settled=70)
    books = await check(driver, job)
    assert (books.records[job.id]["reserved"], books.records[job.id]["cost"]) == (0, 100)


@pytest.mark.parametrize("action", ["bury", "stop", "complete", "fail"])
async def test_what_a_batch_has_is_settled_when_the_job_ends(driver: Driver, action: str) -> None:
    spending = await spender(driver)
    await submitted(spending, await spending.begin(reserved=900))
    job = await leave(driver, spending, action)
    books = await check(driver, job)
    assert books.records[job.id] == {"cost": 900, "spent": 900, "spent_tokens": 2000}


@pytest.mark.parametrize("action", ["cancel", "expire"])
async def test_what_a_batch_has_is_settled_when_the_job_ends_while_it_waits(driver: Driver, action: str) -> None:
    spending = await spender(driver)
    await submitted(spending, await spending.begin(reserved=900))
    job = await leave(driver, spending, "hand_back")
    if action == "cancel":
        await actions.cancel(driver.store, TENANT, job.id)
    else:
        await driver.store.move(job, "expire", stop_reason="expired")
    books = await check(driver, job)
    assert books.records[job.id] == {"cost": 900, "spent": 900, "spent_tokens": 2000}
    assert (await driver.types(job))[-2:] == ["model.failed", f"job.{await driver.status(job)}"]


async def test_a_batch_that_is_known_after_its_call_was_settled_reserves_nothing(driver: Driver) -> None:
    spending = await spender(driver)
    call = await spending.spend()
    before = await check(driver, spending.job)
    await submitted(spending, call)
    assert await check(driver, spending.job) == before
