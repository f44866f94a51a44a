from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_core.types import Budget
from jobs import actions, keys
from jobs.errors import InvalidError
from jobs.listing import Filters, list_approvals, list_jobs
from jobs.records import JobSpec
from jobs.status import ENDED
from jobs.store import JobStore

TENANT = "t"


async def submitted(store, created_ms: int | None = None, **spec):
    job = (
        await store.submit(
            TENANT, JobSpec(agent=spec.pop("agent", "a"), agent_version="v", input="x", **spec), Budget()
        )
    ).job
    if created_ms is not None:  # as if it had come in that ms
        await store.link.command("HSET", keys.job(job.id), "created_ms", created_ms)
        for index in (keys.all_jobs(TENANT), keys.open_jobs(TENANT)):
            await store.link.command("ZADD", index, created_ms, job.id)
    return job.id


async def every(store, limit: int, between=None, scan: dict[str, Any] | None = None, **filters) -> list[str]:
    """The ids of all pages; `between` is awaited after each, `scan` says how the index is read."""
    ids: list[str] = []
    after = None
    while True:
        jobs, after = await list_jobs(store, TENANT, Filters(**filters), limit=limit, after=after, **(scan or {}))
        assert len(jobs) <= limit
        ids += [job.id for job in jobs]
        if after is None:
            return ids
        if between:
            await between()


async def test_the_newest_come_first_and_ties_by_id(store):
    ids = [await submitted(store, ms) for ms in (5, 5, 9, 1, 5)]
    by_place = sorted(zip((5, 5, 9, 1, 5), ids, strict=True), reverse=True)
    for limit in (1, 2, 5, 200):
        assert await every(store, limit) == [job_id for _, job_id in by_place]


async def test_more_jobs_of_one_ms_than_are_looked_at_at_once(store):
    for _ in range(450):
        await submitted(store, 7)
    ids = await every(store, 200)
    assert len(ids) == len(set(ids)) == 450
    assert ids == sorted(ids, reverse=True)


async def test_filters(store):
    a = await submitted(store, 1, tags=["x", "y"], user="u1", session_id="s1")
    b = await submitted(store, 2, tags=["y"], user="u2")
    c = await submitted(store, 3, agent="b")
    await actions.cancel(store, TENANT, b)
    await actions.pause(store, TENANT, c)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, [c, b, a]),
        ({"tag": "y"}, [b, a]),
        ({"tag": "x"}, [a]),
        ({"user": "u2"}, [b]),
        ({"session_id": "s1"}, [a]),
        ({"agent": "b"}, [c]),
        ({"status": "cancelled"}, [b]),
        ({"status": "cancelled", "tag": "x"}, []),
        ({"status": "queued"}, [a]),
        ({"status": "paused", "agent": "b"}, [c]),
        ({"status": "running"}, []),
        ({"created_after": 2}, [c, b]),
        ({"created_before": 3}, [b, a]),
        ({"created_after": 2, "created_before": 3}, [b]),
    ]
    for filters, wanted in cases:
        for limit in (1, 50):
            assert await every(store, limit, **filters) == wanted, filters
    assert (await list_jobs(store, "other", Filters(), limit=9))[0] == []


async def test_a_rare_match_behind_many_others_is_found_over_several_pages(store):
    scan: dict[str, Any] = {"chunk_size": 10, "most_scanned": 40}
    rare = await submitted(store, 1, tags=["rare"])
    for ms in range(2, 130):
        await submitted(store, ms)
    first, cursor = await list_jobs(store, TENANT, Filters(tag="rare"), limit=5, **scan)
    assert (first, cursor is None) == ([], False)
    assert await every(store, 5, scan=scan, tag="rare") == [rare]


async def test_a_damaged_record_and_a_pruned_one_are_left_out(store):
    ids = [await submitted(store, ms) for ms in (1, 2, 3)]
    await store.link.command("HSET", keys.job(ids[0]), "budget", "{")
    await store.link.command("DEL", keys.job(ids[1]))
    assert await every(store, 1) == [ids[2]]


async def test_a_cursor_belongs_to_the_list_that_gave_it(store):
    for ms in (1, 2, 3):
        await submitted(store, ms)
    _, cursor = await list_jobs(store, TENANT, Filters(), limit=2)
    assert len((await list_jobs(store, TENANT, Filters(), limit=2, after=cursor))[0]) == 1
    with pytest.raises(InvalidError):
        await list_jobs(store, "other", Filters(), limit=2, after=cursor)
    with pytest.raises(InvalidError):
        await list_approvals(store.link, TENANT, limit=2, after=cursor)


@dataclass
class Churn:
    """Jobs that come, end and change between two pages."""

    store: JobStore
    dice: random.Random
    waiting: list[str] = field(default_factory=list)

    async def __call__(self) -> None:
        match self.dice.choice(["come", "cancel", "pause", "retry", "none"]):
            case "come":
                await submitted(self.store, 10**9)
            case "cancel" | "pause" | "retry" as action:
                job_id = self.dice.choice(self.waiting)
                job = await self.store.get(TENANT, job_id)
                allowed = {"retry": job.status in ENDED, "cancel": not job.ended, "pause": job.status == "queued"}
                if allowed[action]:
                    await getattr(actions, action)(self.store, TENANT, job_id)
            case _:
                pass


@given(
    times=st.lists(st.integers(1, 6), min_size=1, max_size=25),
    limit=st.integers(1, 4),
    chunk=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_job_is_skipped_or_repeated_while_others_come_and_change(store, times, limit, chunk, seed):
    await store.link.command("FLUSHALL")
    churn = Churn(store, random.Random(seed))
    churn.waiting = [await submitted(store, ms) for ms in times]
    listed = await every(store, limit, churn, {"chunk_size": chunk})
    assert len(listed) == len(set(listed))
    assert [job_id for job_id in listed if job_id in churn.waiting] == [
        job_id for _, job_id in sorted(zip(times, churn.waiting, strict=True), reverse=True)
    ]
