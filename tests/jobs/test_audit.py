"""The audit finds nothing where nothing is wrong, and whatever is."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from agent_core.types import Budget
from jobs import audit as audit_module
from jobs import keys
from jobs.audit import MOVED, PRUNED, Audit, audit
from jobs.budgets import window_of
from jobs.journal import Line
from jobs.link import RedisLink
from jobs.store import JobStore
from tests.jobs.driver import SPEC, TENANT, Driver, attempt_of
from tests.jobs.spender import Spender


@pytest.fixture
async def today(link: RedisLink) -> str:
    seconds, _ = await link.command("TIME")
    return window_of("day", int(seconds))


@pytest.fixture
async def running(store: JobStore) -> Spender:
    """Of two jobs one has ended; the other has an open call."""
    ended = await Spender.start(store, user="u1", session_id="s1")
    await ended.spend(10)
    await ended.fail(await ended.begin(), 900, "worst_case")
    await ended.fail(await ended.begin(), 0, "released")
    await ended.finish()
    other = await Spender.start(store, user='u/"2"')
    await other.spend(20, model="a/b", role="planner")
    await other.begin()
    return other


async def child_of(store: JobStore, parent: Spender) -> Spender:
    """A running job under another."""
    spec = replace(SPEC, user="u1").under(parent.job)
    job = (await store.submit(TENANT, spec, Budget())).job
    claim = await Driver(store).claim_one()
    assert claim.job_id == job.id
    assert claim.job is not None
    return Spender(store, claim.job, attempt_of(claim))


def found(result: Audit) -> list[tuple[str, str, int, int]]:
    return [(d.key, d.figure, d.recorded, d.rows) for d in result.differences]


async def test_all_that_is_counted_is_the_sum_of_its_rows(link: RedisLink, running: Spender) -> None:
    result = await audit(link, TENANT)
    assert (found(result), result.unchecked) == ([], {})
    assert (result.jobs, result.rows) == (2, 5)
    assert result.figures > 90


async def test_a_tenant_without_jobs_is_exact(link: RedisLink) -> None:
    assert (await audit(link, TENANT)).to_json() == {
        "exact": True, "jobs": 0, "rows": 0, "figures": 0, "differences": [], "unchecked": []
    }  # fmt: skip


async def test_a_parent_pays_for_its_children_and_theirs(link: RedisLink, store: JobStore) -> None:
    parent = await Spender.start(store)
    await parent.spend(5)
    child = await child_of(store, parent)
    await child.spend(7)
    grandchild = await child_of(store, child)
    await grandchild.spend(11)
    await grandchild.begin()
    assert (await store.get(None, parent.job.id)).counters["spent"] == 23
    assert found(await audit(link, TENANT)) == []
    await link.command("HINCRBY", keys.job(parent.job.id), "spent", -11)
    assert found(await audit(link, TENANT)) == [(keys.job(parent.job.id), "spent", 12, 23)]


async def test_a_worker_that_is_lost_leaves_nothing_open(link: RedisLink, store: JobStore, running: Spender) -> None:
    await running.store.move(running.job, "rescue", attempt=running.attempt)
    assert found(await audit(link, TENANT)) == []
    assert (await store.get(None, running.job.id)).counters["cost"] == 920


TAMPERED = [
    ("job", "cost"), ("job", "reserved"), ("job", "spent"), ("job", "held"), ("job", "spent_tokens"),
    ("job", "held_tokens"), ("job", "open"), ("job", "input_tokens"), ("job", "cache_write_tokens"),
    ("tenant:total", "settled"), ("tenant:total", "reserved"), ("tenant:{day}", "settled_tokens"),
    ("tenant:{month}", "reserved_tokens"), ("user:u1:total", "settled"), ("user:u1:{day}", "settled"),
    ("session:s1:{month}", "settled"), ("agent:clerk:{day}", "reserved"), ("user:ghost:total", "settled"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "figure"), TAMPERED)
@pytest.mark.parametrize("by", [1, -1])
async def test_a_figure_that_is_one_micro_dollar_or_token_off_is_found(
    link: RedisLink, running: Spender, today: str, where: str, figure: str, by: int
) -> None:
    key = keys.job(running.job.id)
    if where != "job":
        scope, _, window = where.format(day=today, month=today[:7]).rpartition(":")
        key = keys.meter(TENANT, scope, window)
    after = await link.command("HINCRBY", key, figure, by)
    assert found(await audit(link, TENANT)) == [(key, figure, after, after - by)]


async def test_a_wrong_counter_of_a_day_is_found_and_shown_in_dollars(
    link: RedisLink, running: Spender, today: str
) -> None:
    key = keys.usage(TENANT, today)
    fields = [field for field in await link.command("HKEYS", key) if b"planner" in field and field.endswith(b":cost")]
    await link.command("HINCRBY", key, fields[0], 5)
    assert (await audit(link, TENANT)).to_json()["differences"] == [
        {
            "key": key,
            "figure": '["clerk","u/\\"2\\"","a/b","planner"]:cost_usd',
            "recorded": "0.000025",
            "rows": "0.00002",
        }
    ]


async def test_what_is_missing_as_a_whole_is_found(link: RedisLink, running: Spender, today: str) -> None:
    for key in (keys.meter(TENANT, "tenant", "total"), keys.usage(TENANT, today), keys.charged(TENANT, today)):
        dumped = await link.command("DUMP", key)
        await link.command("DEL", key)
        assert {difference.key for difference in (await audit(link, TENANT)).differences} == {key}
        await link.command("RESTORE", key, 0, dumped)
    assert (await audit(link, TENANT)).exact


async def test_a_row_that_is_lost_is_found(link: RedisLink, running: Spender) -> None:
    (line_id, _), *_ = await link.command("XREVRANGE", keys.journal(running.job.id), "+", "-", "COUNT", 1)
    await link.command("XDEL", keys.journal(running.job.id), line_id)
    differing = {(key, figure) for key, figure, _, _ in found(await audit(link, TENANT))}
    assert (keys.job(running.job.id), "reserved") in differing
    assert (keys.meter(TENANT, "tenant", "total"), "reserved") in differing


async def test_an_ended_job_with_an_open_call_is_a_leak(link: RedisLink, running: Spender) -> None:
    await link.command("HSET", keys.job(running.job.id), "status", "completed")
    assert found(await audit(link, TENANT)) == [(keys.job(running.job.id), "open", 1, 0)]


async def test_a_job_that_was_charged_nothing_may_stand_among_the_charged(
    link: RedisLink, running: Spender, today: str
) -> None:
    await link.command("SADD", keys.charged(TENANT, today), running.job.id)
    yesterday = (date.fromisoformat(today) - timedelta(days=1)).isoformat()
    await link.command("SADD", keys.charged(TENANT, yesterday), running.job.id)
    assert found(await audit(link, TENANT)) == []
    await link.command("SREM", keys.charged(TENANT, today), running.job.id)
    assert found(await audit(link, TENANT)) == [(keys.charged(TENANT, today), running.job.id, 0, 1)]


# ---- what cannot be checked


async def test_windows_with_a_pruned_job_are_not_checked_and_all_else_is(
    link: RedisLink, running: Spender, today: str
) -> None:
    (gone,) = {job.decode() for job in await link.command("ZRANGE", keys.all_jobs(TENANT), 0, -1)} - {running.job.id}
    await link.command("DEL", keys.job(gone), keys.journal(gone))
    await link.command("ZREM", keys.all_jobs(TENANT), gone)
    result = await audit(link, TENANT)
    assert found(result) == []
    assert result.unchecked == dict.fromkeys((today, today[:7], "total"), PRUNED)
    await link.command("HINCRBY", keys.job(running.job.id), "cost", 1)
    assert [key for key, *_ in found(await audit(link, TENANT))] == [keys.job(running.job.id)]


async def test_a_day_of_which_it_is_forgotten_who_was_charged_is_not_checked(
    link: RedisLink, running: Spender, today: str
) -> None:
    old = (date.fromisoformat(today) - timedelta(days=101)).isoformat()
    await link.command("HSET", keys.usage(TENANT, old), '["clerk","","m","executor"]:cost', 5)
    result = await audit(link, TENANT)
    assert (found(result), result.unchecked) == ([], dict.fromkeys((old, "total"), PRUNED))
    recent = (date.fromisoformat(today) - timedelta(days=3)).isoformat()
    await link.command("HSET", keys.usage(TENANT, recent), '["clerk","","m","executor"]:cost', 5)
    assert [key for key, *_ in found(await audit(link, TENANT))] == [keys.usage(TENANT, recent)]


@pytest.mark.parametrize(
    ("scope", "window", "days", "expired"),
    [
        ("tenant", "day", 40, False), ("tenant", "day", 41, True), ("agent:clerk", "month", 400, False),
        ("agent:clerk", "month", 401, True), ("session:s1", "total", 90, False), ("session:s1", "total", 91, True),
        ("user:u1", "total", 5000, False),
    ],
)  # fmt: skip
async def test_a_meter_that_has_expired_is_no_difference(
    link: RedisLink, running: Spender, today: str, monkeypatch: pytest.MonkeyPatch, scope: str, window: str, days: int,
    expired: bool,
) -> None:  # fmt: skip
    windows = {"day": today, "month": today[:7], "total": "total"}
    key = keys.meter(TENANT, scope, windows[window])
    await link.command("DEL", key)
    monkeypatch.setattr(audit_module, "_age", lambda day, now: days)
    assert (key in {difference.key for difference in (await audit(link, TENANT)).differences}) != expired


async def test_a_parent_may_have_paid_for_a_child_that_is_pruned(link: RedisLink, store: JobStore) -> None:
    parent = await Spender.start(store)
    child = await child_of(store, parent)
    await child.spend(7)
    await child.finish()
    await link.command("DEL", keys.job(child.job.id), keys.journal(child.job.id))
    result = await audit(link, TENANT)
    assert found(result) == []
    assert keys.job(parent.job.id) in result.unchecked
    await link.command("HINCRBY", keys.job(parent.job.id), "reserved", 1)
    assert found(await audit(link, TENANT)) == [(keys.job(parent.job.id), "reserved", 1, 0)]


@pytest.mark.parametrize("settled", [0, 70])
async def test_what_moves_during_the_audit_is_not_called_wrong(
    link: RedisLink, store: JobStore, running: Spender, today: str, monkeypatch: pytest.MonkeyPatch, settled: int
) -> None:
    """A call begins when the job's record was read, and ends at once: before its rows are read, or after them when it
    is released, so that nothing shows it but a row that is open.
    """
    still, mover = [await Spender.start(store, user=user) for user in ("still", "mover")]
    for spender in (still, mover):
        await spender.spend(3)
    real = JobStore.lines
    begun: list[str] = []

    async def lines(self: JobStore, job_id: str) -> list[Line]:
        if job_id != mover.job.id:
            return await real(self, job_id)
        begun.append(await mover.begin())
        if settled:
            await mover.end(begun[0], settled)
        read = await real(self, job_id)
        if not settled:
            await mover.fail(begun[0], 0, "released")
        return read

    monkeypatch.setattr(JobStore, "lines", lines)
    result = await audit(link, TENANT)
    assert begun
    assert found(result) == []
    assert result.unchecked[keys.job(mover.job.id)] == MOVED
    assert result.unchecked[keys.meter(TENANT, "tenant", today)] == MOVED
    assert keys.meter(TENANT, "user:still", today) not in result.unchecked
