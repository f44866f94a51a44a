"""Setting and lifting budgets, what is left of them, and the jobs that they held."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.types import AtLimit
from jobs import keys
from jobs.budgets import Budgets, Period, ScopeBudget, check_scope, window_of
from jobs.errors import InvalidError, NotFoundError
from jobs.store import JobStore
from tests.jobs.driver import TENANT, Driver, attempt_of
from tests.jobs.spender import TOKENS, Spender


@pytest.fixture
def budgets(store: JobStore) -> Budgets:
    return Budgets(store)


def budget(
    scope: str, micros: int | None = 1000, tokens: int | None = None, period: Period = "day", at: AtLimit = "pause"
) -> ScopeBudget:
    return ScopeBudget(scope, period, micros, tokens, at)


async def today(store: JobStore) -> str:
    seconds, _ = await store.link.command("TIME")
    return window_of("day", int(seconds))


# ---- what is left


async def test_a_budget_shows_what_is_spent_reserved_and_left_in_its_window(budgets: Budgets, store: JobStore) -> None:
    spender = await Spender.start(store, user="u1")
    await spender.spend(70)  # before there was a budget: it counts all the same
    await spender.begin(reserved=900, tokens=2000)
    standing = await budgets.put(TENANT, budget("user:u1", 1000, 5000))
    assert standing.to_json() == {
        "scope": "user:u1",
        "period": "day",
        "window": await today(store),
        "usd": "0.001",
        "tokens": 5000,
        "at_limit": "pause",
        "spent_usd": "0.00007",
        "reserved_usd": "0.0009",
        "remaining_usd": "0.00003",
        "spent_tokens": TOKENS,
        "reserved_tokens": 2000,
        "remaining_tokens": 5000 - TOKENS - 2000,
    }
    assert await budgets.all(TENANT) == [standing]
    assert await budgets.all("other") == []


async def test_a_limit_below_what_is_spent_leaves_nothing_and_no_less(budgets: Budgets, store: JobStore) -> None:
    await (await Spender.start(store)).spend(70)
    shown = (await budgets.put(TENANT, budget("tenant", 69, 1))).to_json()
    assert (shown["remaining_usd"], shown["remaining_tokens"]) == ("0", 0)


async def test_a_budget_takes_the_place_of_the_one_before_and_stands_beside_other_periods(budgets: Budgets) -> None:
    for micros, period in ((5, "day"), (6, "month"), (7, "day")):
        await budgets.put(TENANT, budget("agent:a|b", micros, period=period))  # type: ignore[arg-type]
    await budgets.put(TENANT, budget("user:*", None, 8))
    found = [(s.budget.scope, s.budget.period, s.budget.micros, s.budget.tokens) for s in await budgets.all(TENANT)]
    assert found == [("agent:a|b", "day", 7, None), ("agent:a|b", "month", 6, None), ("user:*", "day", None, 8)]


async def test_a_default_has_no_meter_of_its_own(budgets: Budgets, store: JobStore) -> None:
    await (await Spender.start(store, user="u1")).spend()
    shown = (await budgets.put(TENANT, budget("user:*", 1000, 1000))).to_json()
    figures = ("spent_usd", "reserved_usd", "remaining_usd", "spent_tokens", "reserved_tokens", "remaining_tokens")
    assert [shown[name] for name in figures] == [None] * 6


@pytest.mark.parametrize("scope", ["", "user", "user:", "users:*", "job:job_1", "tenant:t", "user:a\nb", "team:x"])
async def test_what_is_no_scope_is_refused(budgets: Budgets, scope: str) -> None:
    with pytest.raises(InvalidError, match="there are tenant, user:NAME"):
        await budgets.put(TENANT, budget(scope))
    assert await budgets.all(TENANT) == []


async def test_a_budget_of_jobs_counts_over_their_whole_life(budgets: Budgets) -> None:
    with pytest.raises(InvalidError, match="period total"):
        await budgets.put(TENANT, budget("job:*", period="day"))
    await budgets.put(TENANT, budget("job:*", period="total"))


async def test_a_budget_without_a_limit_is_refused(budgets: Budgets) -> None:
    with pytest.raises(InvalidError, match="to lift it, delete it"):
        await budgets.put(TENANT, budget("tenant", None, None))


async def test_what_is_not_there_cannot_be_lifted(budgets: Budgets) -> None:
    await budgets.put(TENANT, budget("tenant", period="day"))
    for tenant, period in ((TENANT, "month"), ("other", "day")):
        with pytest.raises(NotFoundError):
            await budgets.remove(tenant, "tenant", period)  # type: ignore[arg-type]


@given(st.integers(0, 4_000_000_000))
def test_windows_are_those_of_the_calendar_in_utc(seconds: int) -> None:
    moment = time.gmtime(seconds)
    assert window_of("day", seconds) == time.strftime("%Y-%m-%d", moment)
    assert window_of("month", seconds) == time.strftime("%Y-%m", moment)
    assert window_of("total", seconds) == "total"


@given(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f"), min_size=1, max_size=128))
def test_every_user_that_a_job_may_have_can_have_a_budget(name: str) -> None:
    check_scope(f"user:{name}", "day")


# ---- the jobs that were held


async def held(store: JobStore, **spec: object) -> Spender:
    """A job that a budget holds."""
    spender = await Spender.start(store, **spec)
    await spender.hold(await spender.refused())
    assert await spender.status() == "paused"
    return spender


@pytest.mark.parametrize("scope", ["tenant", "user:u1", "session:s1", "agent:clerk", "user:*", "agent:*", "job:*"])
@pytest.mark.parametrize("change", ["raise", "warn", "remove"])
async def test_a_changed_budget_lets_the_jobs_go_on_that_it_held(
    budgets: Budgets, store: JobStore, scope: str, change: str
) -> None:
    period: Period = "total" if scope == "job:*" else "month"
    await budgets.put(TENANT, budget(scope, 100, period=period))
    spender = await held(store, user="u1", session_id="s1")
    if change == "remove":
        await budgets.remove(TENANT, scope, period)
    else:
        at: AtLimit = "pause" if change == "raise" else "warn"
        await budgets.put(TENANT, budget(scope, 5000 if change == "raise" else 100, period=period, at=at))
    assert await spender.status() == "queued"
    assert await store.link.command("ZCARD", keys.HELD) == 0
    await (await reclaimed(store, spender)).spend()


async def reclaimed(store: JobStore, spender: Spender) -> Spender:
    """The job's next attempt."""
    claim = await Driver(store).claim_one()
    assert claim.job is not None
    assert claim.job_id == spender.job.id
    return Spender(store, claim.job, attempt_of(claim))


async def test_a_budget_of_its_own_frees_who_was_held_by_the_default(budgets: Budgets, store: JobStore) -> None:
    await budgets.put(TENANT, budget("user:*", 100))
    one, other = [await held(store, user=user) for user in ("u1", "u2")]
    await budgets.put(TENANT, budget("user:u1", 5000))
    assert (await one.status(), await other.status()) == ("queued", "paused")


@pytest.mark.parametrize(
    ("tenant", "scope", "period"),
    [(TENANT, "user:u1", "month"), (TENANT, "user:u2", "day"), (TENANT, "tenant", "day"), ("other", "user:u1", "day")],
)
async def test_another_budget_frees_nobody(
    budgets: Budgets, store: JobStore, tenant: str, scope: str, period: Period
) -> None:
    await budgets.put(TENANT, budget("user:u1", 100))
    spender = await held(store, user="u1")
    await budgets.put(tenant, budget(scope, 9000, period=period))
    assert await spender.status() == "paused"


async def test_a_raise_that_is_not_enough_frees_for_one_more_refusal(budgets: Budgets, store: JobStore) -> None:
    await budgets.put(TENANT, budget("user:u1", 100))
    spender = await held(store, user="u1")
    await budgets.put(TENANT, budget("user:u1", 200))
    again = await reclaimed(store, spender)
    refusal = await again.refused()
    await again.hold(refusal)
    assert (refusal.left, await again.status()) == (200, "paused")


async def test_a_job_that_was_cancelled_while_it_was_held_stays_so(budgets: Budgets, store: JobStore) -> None:
    await budgets.put(TENANT, budget("user:u1", 100))
    spender = await held(store, user="u1")
    # as if it were cancelled between our look at the held jobs and our move
    await store.link.command("HSET", keys.job(spender.job.id), "status", "cancelled")
    await budgets.put(TENANT, budget("user:u1", 5000))
    assert await spender.status() == "cancelled"


# ---- a change between a refusal and the hold


@pytest.mark.parametrize("default", [True, False])
async def test_a_budget_that_is_changed_just_before_the_job_is_held_lets_it_go(
    budgets: Budgets, store: JobStore, default: bool
) -> None:
    await budgets.put(TENANT, budget("user:*" if default else "user:u1", 100))
    spender = await Spender.start(store, user="u1")
    refusal = await spender.refused()
    await budgets.put(TENANT, budget("user:u1", 5000))
    await spender.hold(refusal)
    assert await spender.status() == "queued"


@pytest.mark.parametrize("way", ["removed", "warns"])
async def test_a_budget_that_stops_nobody_any_more_holds_nobody(budgets: Budgets, store: JobStore, way: str) -> None:
    await budgets.put(TENANT, budget("agent:clerk", 100))
    spender = await Spender.start(store)
    refusal = await spender.refused()
    if way == "removed":
        await budgets.remove(TENANT, "agent:clerk", "day")
    else:
        await budgets.put(TENANT, budget("agent:clerk", 100, at="warn"))
    await spender.hold(refusal)
    assert await spender.status() == "queued"


@pytest.mark.parametrize("scope", ["job:*", "tenant", "session:*", None])
async def test_a_job_stays_held_when_its_limit_is_as_it_was(
    budgets: Budgets, store: JobStore, scope: str | None
) -> None:
    """None is the job's own limit."""
    if scope is None:
        spender = await Spender.start(store, session_id="s")
        await store.link.command("HSET", keys.job(spender.job.id), "limit_micros", 100, "at_limit", "pause")
    else:
        await budgets.put(TENANT, budget(scope, 100, period="total"))
        spender = await Spender.start(store, session_id="s")
    refusal = await spender.refused()
    await budgets.put(TENANT, budget("user:u1", 5000))
    await spender.hold(refusal)
    assert await spender.status() == "paused"
