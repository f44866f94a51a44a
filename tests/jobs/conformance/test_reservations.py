"""Reservations: what a call is charged to, which limits hold it, and how it is settled."""

from __future__ import annotations

import asyncio

import pytest

from agent_core.entries import ModelCompleted, ModelStarted
from agent_core.errors import BudgetError, KilledError
from agent_core.types import Budget
from jobs.budgets import Period
from tests.jobs.books import check, lift, limit, rows_of, scopes_of
from tests.jobs.driver import Driver, turn
from tests.jobs.spender import TOKENS, Spender, write

WHOSE = {"user": "u1", "session_id": "s1"}
SCOPES = ["tenant", "agent:clerk", "user:u1", "session:s1"]
PERIODS: list[Period] = ["total", "month", "day"]
UNLIMITED = Budget(usd=None)


async def spender(driver: Driver, budget: Budget = UNLIMITED) -> Spender:
    return await Spender.start(driver.store, budget=budget, **WHOSE)


# ---- what a call is charged to


async def test_a_call_is_charged_to_its_job_and_to_every_scope_in_every_window(driver: Driver) -> None:
    spending = await spender(driver)
    call = await spending.begin(reserved=900, tokens=2000)
    books = await check(driver, spending.job)
    assert scopes_of(spending.job) == SCOPES
    assert len(books.meters) == len(SCOPES) * len(PERIODS)
    assert list(books.meters.values()) == [{"reserved": 900, "reserved_tokens": 2000}] * 12
    assert books.records[spending.job.id] == {"reserved": 900, "held": 900, "held_tokens": 2000}

    await spending.end(call, settled=70)
    books = await check(driver, spending.job)
    assert list(books.meters.values()) == [{"settled": 70, "settled_tokens": TOKENS}] * 12
    assert books.records[spending.job.id] == {"cost": 70, "spent": 70, "spent_tokens": TOKENS}


async def test_usage_is_counted_by_agent_user_model_and_role(driver: Driver) -> None:
    spending = await spender(driver)
    await spending.spend(70, model="m1", role="planner")
    await spending.spend(30, model="m1", role="planner")
    await spending.spend(5, model="m2")
    books = await check(driver, spending.job)
    found = {(about, counter): count for (_, about, counter), count in books.usage.items()}
    planner, executor = ("clerk", "u1", "m1", "planner"), ("clerk", "u1", "m2", "executor")
    assert (found[planner, "cost"], found[planner, "calls"], found[planner, "cache_read_tokens"]) == (100, 2, 600)
    assert (found[executor, "cost"], found[executor, "calls"]) == (5, 1)


async def test_a_job_without_a_user_or_a_session_has_no_meter_of_one(driver: Driver) -> None:
    await limit(driver, "user:*", 1)
    await limit(driver, "session:*", 1)
    spending = await Spender.start(driver.store)
    await spending.spend()
    assert {scope for scope, _ in (await check(driver, spending.job)).meters} == {"tenant", "agent:clerk"}


async def test_a_call_that_is_released_leaves_nothing(driver: Driver) -> None:
    spending = await spender(driver)
    await spending.fail(await spending.begin(), 0, "released")
    books = await check(driver, spending.job)
    assert not books.meters
    assert not books.records
    assert set(books.usage.values()) == {1}, "the call is counted"


async def test_a_call_without_a_usage_counts_for_the_tokens_that_were_reserved(driver: Driver) -> None:
    spending = await spender(driver)
    await spending.fail(await spending.begin(reserved=900, tokens=2000), 900, "worst_case")
    books = await check(driver, spending.job)
    assert books.meters["tenant", "total"] == {"settled": 900, "settled_tokens": 2000}


async def test_a_call_is_settled_once(driver: Driver) -> None:
    spending = await spender(driver)
    call = await spending.begin()
    await spending.end(call, settled=70)
    before = await check(driver, spending.job)
    await spending.end(call, settled=70)
    assert await check(driver, spending.job) == before
    assert len(await rows_of(driver, spending.job)) == 1


async def test_a_repeated_write_moves_no_money(driver: Driver) -> None:
    spending = await spender(driver)
    store, job, token = spending.store, spending.job, spending.attempt.token
    started = ModelStarted("c", 1, "m", 900, 2000)
    ended = ModelCompleted("c", 1, "m", [], "end_turn", {"input_tokens": 9}, "p", 900, 70, "settled")
    for number, entry in ((1, started), (1, started), (2, ended), (1, started), (2, ended)):
        await write(store, job.id, token, number, entry)
    books = await check(driver, job)
    assert books.meters["tenant", "total"] == {"settled": 70, "settled_tokens": 9}
    assert await driver.types(job) == ["job.queued", "job.started", "model.started", "model.completed"]


# ---- limits


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("scope", [*SCOPES, "user:*", "session:*", "agent:*"])
async def test_a_limit_holds_to_the_last_micro_dollar_and_token(driver: Driver, scope: str, period: Period) -> None:
    spending = await spender(driver)
    await limit(driver, scope, 1000, 3000, period=period)
    call = await spending.begin(reserved=900, tokens=1000)
    for reserved, tokens, unit in ((101, 1000, "usd"), (100, 2001, "tokens")):
        refusal = await spending.refused(reserved, tokens)
        assert (refusal.unit, refusal.period, refusal.held_by) == (unit, period, f"{scope}|{period}")
    second = await spending.begin(reserved=100, tokens=2000)
    await spending.end(call, settled=70)
    await spending.begin(reserved=830, tokens=1000 - TOKENS)
    await spending.end(second, settled=0, usage=None)
    await check(driver, spending.job)


@pytest.mark.parametrize("scope", [*SCOPES, "user:*", "session:*", "agent:*", "job:*", "job"])
async def test_a_call_that_one_limit_refuses_is_charged_to_none_and_leaves_no_trace(driver: Driver, scope: str) -> None:
    budget = Budget(usd="0.0009") if scope == "job" else UNLIMITED
    spending = await spender(driver, budget)
    for roomy in SCOPES:
        await limit(driver, roomy, 5000, period="day")
    if scope != "job":
        await limit(driver, scope, 900)
    await spending.end(await spending.begin(), settled=1)
    before, lines = await check(driver, spending.job), await driver.store.lines(spending.job.id)
    spending.written += 1
    with pytest.raises(BudgetError) as caught:
        await write(
            spending.store, spending.job.id, spending.attempt.token, spending.written, ModelStarted("c", 1, "m", 900)
        )
    assert caught.value.refusal.held_by == f"{scope}|total"
    assert await check(driver, spending.job) == before
    assert await driver.store.lines(spending.job.id) == lines

    spending.written -= 1  # the number of a write that was refused is free
    await spending.begin(reserved=899)


@pytest.mark.parametrize("at_once", [2, 40])
async def test_calls_of_many_jobs_at_once_do_not_pass_a_limit(driver: Driver, at_once: int) -> None:
    await limit(driver, "user:u1", 10 * 900 + 899)
    spenders = []
    for number in range(at_once):
        job, attempt = await driver.start(user="u1", priority=["high", "low"][number % 2])
        spenders.append(Spender(driver.store, job, attempt))
    answers = await asyncio.gather(*(one.begin() for one in spenders), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BudgetError)]
    assert len(answers) - len(refused) == min(10, at_once)
    books = await check(driver, *(one.job for one in spenders))
    assert books.meters["user:u1", "total"]["reserved"] == 900 * min(10, at_once)


async def test_a_limit_that_warns_refuses_nothing(driver: Driver) -> None:
    spending = await spender(driver, Budget(usd="0.000001", at_limit="warn"))
    for scope in (*SCOPES, "job:*"):
        await limit(driver, scope, 1, 1, at_limit="warn")
    await spending.spend()
    await spending.begin()
    await check(driver, spending.job)


async def test_limits_of_another_tenant_hold_nothing(driver: Driver) -> None:
    for scope in SCOPES:
        await limit(driver, scope, 1, tenant="other")
    await (await spender(driver)).begin()


async def test_what_was_spent_before_there_was_a_limit_counts(driver: Driver) -> None:
    spending = await spender(driver)
    await spending.spend(70)
    await limit(driver, "tenant", 900)
    assert (await spending.refused()).left == 830
    await limit(driver, "tenant", 970)
    await spending.begin()


async def test_a_limit_below_what_is_reserved_leaves_less_than_nothing(driver: Driver) -> None:
    spending = await spender(driver)
    call = await spending.begin(reserved=900)
    await limit(driver, "tenant", 500)
    refusal = await spending.refused(reserved=1)
    assert (refusal.left, refusal.room_micros) == (-400, -400)
    await spending.end(call, settled=70)
    await spending.begin(reserved=430)


# ---- defaults


@pytest.mark.parametrize(("own", "default"), [(1000, 500), (500, 1000)])
@pytest.mark.parametrize(
    ("scope", "other"), [("user:u1", "user:*"), ("session:s1", "session:*"), ("agent:clerk", "agent:*")]
)
async def test_a_budget_of_ones_own_wins_over_the_default(
    driver: Driver, scope: str, other: str, own: int, default: int
) -> None:
    spending = await spender(driver)
    await limit(driver, other, default)
    await limit(driver, scope, own)
    refusal = await spending.refused(reserved=1001)
    assert (refusal.scope, refusal.limit, refusal.held_by) == (scope, own, f"{scope}|total")
    await lift(driver, scope)
    refusal = await spending.refused(reserved=1001)
    assert (refusal.scope, refusal.limit, refusal.held_by) == (scope, default, f"{other}|total")


async def test_a_default_holds_in_the_periods_for_which_there_is_no_budget_of_its_own(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "user:u1", 5000, period="month")
    await limit(driver, "user:*", 1000, period="day")
    assert (await spending.refused(reserved=1001)).held_by == "user:*|day"


async def test_a_default_holds_for_each_on_its_own(driver: Driver) -> None:
    await limit(driver, "user:*", 1000)
    first = await spender(driver)
    await first.begin()
    second = await Spender.start(driver.store, user="u2")
    await second.begin()
    for spending in (first, second):
        assert (await spending.refused()).left == 100
    third = await Spender.start(driver.store)
    await third.begin(reserved=5000)


@pytest.mark.parametrize(
    ("own", "scope", "most"), [("0.002", "job:*", 1000), ("0.0005", "job", 500), (None, "job:*", 1000)]
)
async def test_a_cap_holds_each_job_beside_its_own_limit(
    driver: Driver, own: str | None, scope: str, most: int
) -> None:
    await limit(driver, "job:*", 1000)
    for _ in range(2):
        spending = await spender(driver, Budget(usd=own))
        refusal = await spending.refused(reserved=most + 1)
        assert (refusal.scope, refusal.limit, refusal.held_by) == (scope, most, f"{scope}|total")
        await spending.begin(reserved=most)
        await spending.finish()


# ---- kill switches


@pytest.mark.parametrize("switch", ["global", "tenant:acme", "agent:acme:clerk", "agent:acme:boss"])
async def test_a_kill_switch_refuses_a_reservation_and_nothing_is_written(driver: Driver, switch: str) -> None:
    spending = await Spender.start(driver.store, ancestor_agents=["boss"], **WHOSE)
    call = await spending.begin()
    await turn(driver, switch, on=True)
    before, lines = await check(driver, spending.job), await driver.store.lines(spending.job.id)
    with pytest.raises(KilledError) as caught:
        await spending.begin()
    assert caught.value.switch == switch
    assert await check(driver, spending.job) == before
    assert await driver.store.lines(spending.job.id) == lines
    await spending.end(call)  # what was begun is settled all the same
    await turn(driver, switch, on=False)
    await spending.begin()
    await check(driver, spending.job)


async def test_a_kill_switch_of_others_refuses_nothing(driver: Driver) -> None:
    for switch in ("tenant:other", "agent:acme:boss", "agent:other:clerk"):
        await turn(driver, switch, on=True)
    await (await spender(driver)).begin()


async def test_a_kill_switch_comes_before_a_limit(driver: Driver) -> None:
    spending = await spender(driver)
    await limit(driver, "tenant", 1)
    await turn(driver, "global", on=True)
    with pytest.raises(KilledError):
        await spending.begin()
