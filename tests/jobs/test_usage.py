"""The sums of what was used, and the ledger of all jobs."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from agent_core.types import Json
from jobs import keys, usage
from jobs.budgets import window_of
from jobs.errors import InvalidError
from jobs.link import RedisLink
from jobs.store import JobStore
from tests.jobs.driver import TENANT
from tests.jobs.spender import USAGE, Spender

SUMS = {
    "calls",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost_usd",
    "cache_hit_rate",
}


@pytest.fixture
async def today(link: RedisLink) -> str:
    seconds, _ = await link.command("TIME")
    return window_of("day", int(seconds))


@pytest.fixture
async def spent(store: JobStore) -> None:
    """Calls of two users, two models and two roles."""
    one = await Spender.start(store, user="u1", agent_version="1")
    await one.spend(10, model="a")
    await one.spend(20, model="b", role="planner")
    await one.fail(await one.begin(), 900, "worst_case")
    other = await Spender.start(store)
    await other.spend(40, {"input_tokens": 5}, model="a")


async def by(link: RedisLink, days: list[str], *dimensions: str, **only: str) -> list[Json]:
    return await usage.usage(link, TENANT, days, dimensions, only)


async def test_the_sums_are_by_what_is_asked_for(link: RedisLink, today: str, spent: None) -> None:
    users = await by(link, [today], "user")
    assert [(row["user"], row["calls"], row["cost_usd"]) for row in users] == [
        (None, 1, "0.00004"),
        ("u1", 3, "0.00093"),
    ]
    models = await by(link, [today], "model", "role")
    assert [(row["model"], row["role"], row["cost_usd"]) for row in models] == [
        ("a", "executor", "0.00005"), ("b", "planner", "0.00002"), ("m", "executor", "0.0009")
    ]  # fmt: skip
    (day,) = await by(link, [today], "day", "agent")
    assert (day["day"], day["agent"], day["calls"]) == (today, "clerk", 4)
    assert set(day) == {"day", "agent", *SUMS}


async def test_the_sums_are_of_what_is_asked_for(link: RedisLink, today: str, spent: None) -> None:
    (row,) = await by(link, [today], "day", user="u1", model="a")
    assert row["calls"] == 1
    assert await by(link, [today], "day", agent="nobody") == []
    assert await usage.usage(link, "other", [today], ["day"], {}) == []


async def test_tokens_and_the_share_that_came_from_the_cache(link: RedisLink, today: str, spent: None) -> None:
    (row,) = await by(link, [today], "model", model="b")
    assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]) == (
        100, 20, 300, 7
    )  # fmt: skip
    assert row["cache_hit_rate"] == round(300 / 407, 4)
    (lost,) = await by(link, [today], "model", model="m")
    assert lost["cache_hit_rate"] is None


async def test_days_are_added_up(link: RedisLink, today: str, spent: None) -> None:
    days = [(date.fromisoformat(today) - timedelta(days=n)).isoformat() for n in range(70)]
    for day in (days[1], days[69]):
        await link.command("COPY", keys.usage(TENANT, today), keys.usage(TENANT, day))
    assert [row["day"] for row in await by(link, days[::-1], "day")] == [days[69], days[1], today]
    (row,) = await by(link, days, "agent")
    assert (row["calls"], row["cost_usd"]) == (12, "0.00291")


async def test_what_is_no_dimension_is_refused_with_those_there_are(link: RedisLink) -> None:
    with pytest.raises(InvalidError, match="'tenant'; there are: day, agent, user, model, role"):
        await by(link, [], "tenant")


async def test_days_are_by_the_clock_of_redis_and_bounded(link: RedisLink, today: str) -> None:
    days = await usage.days_between(link, None, None)
    assert (len(days), days[-1]) == (30, today)
    assert await usage.days_between(link, date(2026, 2, 28), date(2026, 3, 1)) == ["2026-02-28", "2026-03-01"]
    assert len(await usage.days_between(link, None, date(2026, 3, 1))) == 30
    for first, last in ((date(2026, 3, 2), date(2026, 3, 1)), (date(2024, 1, 1), date(2026, 1, 1))):
        with pytest.raises(InvalidError, match="1 to 400 days"):
            await usage.days_between(link, first, last)


# ---- the rows


async def rows(store: JobStore, days: list[str], after: str | None = None) -> list[tuple[str, Json]]:
    place = usage.parse_place(after) if after else None
    return [(place.text(), row) async for place, row in usage.ledger(store, TENANT, days, place)]


async def test_every_settled_row_is_there_once_and_says_whose_it_is(store: JobStore, today: str, spent: None) -> None:
    still_open = await Spender.start(store, user="u3", session_id="s")
    await still_open.spend(1)
    await still_open.begin()
    found = [row for _, row in await rows(store, [today])]
    assert [row["settled_usd"] for row in found] == ["0.00001", "0.00002", "0.0009", "0.00004", "0.000001"]
    assert [(row["day"], row["agent"], row["user"], row["session_id"]) for row in found[2:]] == [
        (today, "clerk", "u1", None), (today, "clerk", None, None), (today, "clerk", "u3", "s")
    ]  # fmt: skip
    assert found[0]["usage"] == USAGE
    assert await rows(store, ["2020-01-01"]) == []


async def test_the_ledger_goes_on_after_any_of_its_places(
    store: JobStore, today: str, spent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "JOBS_AT_ONCE", 1)
    whole = await rows(store, [today])
    for number, (place, _) in enumerate(whole, 1):
        assert await rows(store, [today], after=place) == whole[number:]
    yesterday = (date.fromisoformat(today) - timedelta(days=1)).isoformat()
    assert await rows(store, [yesterday, today], after=whole[0][0]) == whole[1:]


async def test_a_job_that_is_pruned_is_left_out(store: JobStore, today: str, spent: None) -> None:
    found = [row for _, row in await rows(store, [today])]
    gone = found[0]["job_id"]
    await store.link.command("DEL", keys.job(gone), keys.journal(gone))
    assert [row for _, row in await rows(store, [today])] == [row for row in found if row["job_id"] != gone]


@pytest.mark.parametrize("text", ["", "x", "2026-11-20", "2026-11-20.job_1", "2026-11-20.job_1.-1", "2026-11-20.a:b.1"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        usage.parse_place(text)
