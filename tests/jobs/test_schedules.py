"""Schedules and their slot ledgers on a real Redis, with its clock; what lies in the past is put there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from agent_core.types import Budget, Json
from jobs import actions, keys, stats
from jobs.agents import AgentCatalogue, Published
from jobs.errors import ConflictError, InvalidError, NotFoundError
from jobs.firing import Launcher
from jobs.kill_switch import KillSwitches
from jobs.link import RedisLink
from jobs.listing import Filters, list_jobs, list_schedules, list_slots
from jobs.moves import Attempt
from jobs.queue import queue_names
from jobs.records import Job
from jobs.schedules import MOST_WAITING, Row, Schedule, Schedules, ScheduleSpec
from jobs.slots import look
from jobs.store import JobStore
from tests.docs.markdown import CODE, ROOT, table
from worker.scheduler import Scheduler

TENANT = "t"
HOUR = 3_600_000
ECHO = Published("echo", "v1", {"name": "echo", "pool": "default", "budget": Budget().to_json(), "tools": []})


class Desk:
    """Makes schedules, moves them into the past, and lets a scheduler look."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.link = store.link
        self.schedules = Schedules(store.link)
        self.scheduler = Scheduler(store.link)

    async def make(self, cron: str = "@every 1h", job: Json | None = None, **fields: Any) -> Schedule:
        given = {"agent": "echo", "input": "go", "tags": [], "metadata": {}, **(job or {})}
        return await self.schedules.create(TENANT, ScheduleSpec(cron, given, **fields))

    async def made_before(self, ms: int, cron: str = "@every 1h", **fields: Any) -> Schedule:
        """A schedule that nobody has looked at for so long."""
        schedule = await self.make(cron, **fields)
        await self.shift(schedule, ms)
        return await self.schedules.get(TENANT, schedule.id)

    async def shift(self, schedule: Schedule, ms: int) -> None:
        now = await self.schedules.now()
        begin = now - ms - (now - ms) % 1000
        await self.link.command("HSET", keys.schedule(schedule.id), "created_ms", begin, "cursor_ms", begin)

    async def rows(self, schedule: Schedule) -> list[Row]:
        """The ledger, the oldest first."""
        return (await self.schedules.newest(schedule.id, 1000))[::-1]

    async def look(self, schedule: Schedule) -> list[Row]:
        """Lets a scheduler look at it now; the ledger then."""
        await self.link.command("ZADD", keys.SCHEDULES, "XX", 0, schedule.id)
        await self.scheduler.sweep()
        return await self.rows(schedule)

    async def jobs(self) -> list[Job]:
        return (await list_jobs(self.store, TENANT, Filters(), limit=200))[0]

    async def end(self, job_id: str, output: str = "done") -> None:
        """Runs a job to its end."""
        while True:
            (claim,) = await self.store.tickets.claim(
                queue_names(["default"]), ["echo@v1"], most=1, lease=30, worker="w"
            )
            job = await self.store.get(None, claim.job_id)
            data = {"output": output, "error": None}
            await self.store.move(
                job, "complete", data, attempt=Attempt(claim.token, claim.queue), stop_reason="end_turn"
            )
            if job.id == job_id:
                return


@pytest.fixture
async def desk(store: JobStore) -> Desk:
    await AgentCatalogue(store.link).publish([ECHO])
    return Desk(store)


def shown(row: Row) -> str:
    return row.outcome if row.reason is None else f"{row.outcome}: {row.reason}"


OVERLAPS = table(ROOT / "docs/schedules.md", "`overlap`", "first", "second")


@pytest.mark.parametrize("row", OVERLAPS, ids=lambda row: row[0].strip("`"))
async def test_the_table_of_six_missed_slots_under_each_overlap_policy(desk: Desk, row: list[str]) -> None:
    policy, *expected, open_jobs = [CODE.sub(r"\1", cell) for cell in row]
    schedule = await desk.made_before(6 * HOUR + HOUR // 2, overlap=policy, catch_up="all")
    assert [shown(one) for one in await desk.look(schedule)] == expected
    assert sum(not job.ended for job in await desk.jobs()) == int(open_jobs)
    assert [shown(one) for one in await desk.look(schedule)] == expected, "a second look changes nothing"


async def test_a_slot_is_a_job_with_what_was_asked_for(desk: Desk) -> None:
    job = {"input": {"say": ["{{ scheduled_at }}", 1]}, "priority": "high", "budget": {"usd": "0.5"}, "tags": ["a"]}
    schedule = await desk.made_before(HOUR, job=job)
    (row,) = await desk.look(schedule)
    (made,) = await desk.jobs()
    assert (row.job, row.outcome) == (made.id, "fired")
    at = row.to_json()["scheduled_at"]
    assert made.spec.input == {"say": [at, 1]}
    assert (made.spec.priority, made.spec.tags, made.spec.user) == ("high", ["a"], schedule.id)
    assert made.budget == Budget(usd="0.5")
    assert made.spec.metadata == {"schedule_id": schedule.id, "scheduled_at": at}
    assert (made.spec.agent_version, made.status) == ("v1", "queued")


async def test_many_schedulers_fire_a_slot_once(desk: Desk) -> None:
    schedules = [await desk.made_before(3 * HOUR, overlap="allow", catch_up="all") for _ in range(5)]
    others = [Scheduler(desk.link) for _ in range(8)]
    await asyncio.gather(*(one.sweep() for one in others))
    for schedule in schedules:
        rows = await desk.rows(schedule)
        assert [shown(row) for row in rows] == ["caught_up: missed"] * 2 + ["fired"]
    made = Counter(job.spec.metadata["schedule_id"] for job in await desk.jobs())
    assert made == {schedule.id: 3 for schedule in schedules}


@pytest.mark.parametrize("submitted", [False, True], ids=["before the submission", "after it"])
async def test_what_a_scheduler_leaves_behind_another_submits_once(desk: Desk, submitted: bool) -> None:
    schedule = await desk.made_before(HOUR)
    found = look(schedule.timing, schedule.cursor_ms, await desk.schedules.now())
    (slot,) = await desk.schedules.handle(schedule, found)
    if submitted:
        (row,) = await desk.schedules.rows(schedule.id, [slot])
        assert row is not None
        await Launcher(desk.schedules, desk.store, AgentCatalogue(desk.link))._submit(schedule, row)
    await desk.scheduler.sweep()
    assert len(await desk.jobs()) == int(submitted), "it is left to the first for a while"
    await desk.link.command("ZADD", keys.FIRING, 0, f"{schedule.id} {slot}")
    await asyncio.gather(desk.scheduler.sweep(), Scheduler(desk.link).sweep())
    assert len(await desk.jobs()) == 1
    assert await desk.link.command("ZCARD", keys.FIRING) == 0
    assert (await stats.read(desk.link))["schedule_slots_total|fired"] == 1


async def test_a_slot_cannot_be_handled_twice_nor_before_its_time(desk: Desk) -> None:
    schedule = await desk.made_before(HOUR, overlap="allow")
    now = await desk.schedules.now()
    found = look(schedule.timing, schedule.cursor_ms, now)
    early = look(schedule.timing, schedule.cursor_ms, now + 5 * HOUR)
    assert await desk.schedules.handle(schedule, early) == [], "by a clock that is five hours fast"
    assert await desk.rows(schedule) == []
    assert len(await desk.schedules.handle(schedule, found)) == 1
    assert await desk.schedules.handle(schedule, found) == []
    assert len(await desk.rows(schedule)) == 1
    assert (await desk.schedules.get(TENANT, schedule.id)).runs == 1


async def test_a_queue_goes_on_when_a_run_has_ended(desk: Desk) -> None:
    schedule = await desk.made_before(3 * HOUR, overlap="queue", catch_up="all")
    first, second, third = await desk.look(schedule)
    assert [shown(row) for row in (first, second, third)] == [
        "caught_up: missed",
        "waiting: missed",
        "waiting: overlap",
    ]
    assert second.to_json()["job_id"] is None
    await desk.end(first.job)
    assert [shown(row) for row in await desk.look(schedule)][1:] == ["caught_up: missed", "waiting: overlap"]
    await desk.end(second.job)
    assert [shown(row) for row in await desk.look(schedule)][2:] == ["late: overlap"]
    assert [job.id for job in await desk.jobs()] == [third.job, second.job, first.job]


async def test_a_queue_has_an_end(desk: Desk) -> None:
    schedule = await desk.made_before(120 * HOUR, overlap="queue", catch_up="all", catch_up_window=200 * 3600)
    rows = await desk.look(schedule)
    found = Counter(row.reason for row in rows if row.outcome == "skipped")
    assert found == {"queue_full": 120 - 1 - MOST_WAITING}


@pytest.mark.parametrize("policy", ["skip", "queue"])
async def test_concurrency_is_how_many_may_run_at_once(desk: Desk, policy: str) -> None:
    schedule = await desk.made_before(3 * HOUR + HOUR // 2, overlap=policy, catch_up="all", concurrency=2)
    rows = await desk.look(schedule)
    assert [row.outcome for row in rows][:2] == ["caught_up", "caught_up"]
    assert rows[2].outcome == ("skipped" if policy == "skip" else "waiting")


async def test_runs_that_ended_make_room(desk: Desk) -> None:
    schedule = await desk.made_before(HOUR)
    (first,) = await desk.look(schedule)
    await desk.end(first.job)
    await desk.shift(schedule, HOUR + 2000)
    assert [row.outcome for row in await desk.look(schedule)] == ["fired", "fired"]


async def test_the_last_run_is_the_newest_that_completed(desk: Desk) -> None:
    text = "after {{last_run.id}}: {{ last_run.output }}"
    schedule = await desk.made_before(HOUR, job={"input": text}, overlap="allow")
    (first,) = await desk.look(schedule)
    assert (await desk.store.get(TENANT, first.job)).spec.input == "after : "
    await desk.end(first.job, "{{ scheduled_at }}")
    second = await trigger(desk, schedule)
    assert second.spec.input == f"after {first.job}: {{{{ scheduled_at }}}}", "an output is no template"
    third = await trigger(desk, schedule)
    assert third.spec.input == second.spec.input, "the second has not completed"


async def trigger(desk: Desk, schedule: Schedule) -> Job:
    row = await desk.schedules.trigger(schedule)
    job = await Launcher(desk.schedules, desk.store, AgentCatalogue(desk.link)).submit(schedule.id, row.slot)
    assert job is not None
    return job


async def test_a_trigger_fires_whatever_runs_and_while_it_is_paused(desk: Desk) -> None:
    schedule = await desk.schedules.pause(await desk.make())
    jobs = [await trigger(desk, schedule) for _ in range(2)]
    assert {shown(row) for row in await desk.rows(schedule)} == {"fired: triggered"}
    assert {job.id for job in await desk.jobs()} == {job.id for job in jobs}
    assert (await desk.schedules.get(TENANT, schedule.id)).runs == 0


async def test_it_ends_after_so_many_runs(desk: Desk) -> None:
    schedule = await desk.made_before(5 * HOUR, overlap="allow", catch_up="all", max_runs=3)
    assert len(await desk.look(schedule)) == 3
    ended = await desk.schedules.get(TENANT, schedule.id)
    assert (ended.state, ended.runs, ended.next_runs(0)) == ("ended", 3, [])
    assert await desk.link.command("ZSCORE", keys.SCHEDULES, schedule.id) is None
    with pytest.raises(ConflictError, match="ended"):
        await desk.schedules.pause(ended)
    again = await desk.schedules.change(ended, {"max_runs": 4})
    assert (again.state, len(again.next_runs(await desk.schedules.now()))) == ("active", 1)


async def test_it_ends_at_a_date_when_what_waits_has_run(desk: Desk) -> None:
    now = await desk.schedules.now()
    schedule = await desk.made_before(2 * HOUR + HOUR // 2, overlap="queue", catch_up="all", ends_at=now)
    first, second = await desk.look(schedule)
    assert (await desk.schedules.get(TENANT, schedule.id)).state == "active"
    await desk.end(first.job)
    await desk.look(schedule)
    assert (await desk.schedules.get(TENANT, schedule.id)).state == "ended"
    assert {job.id for job in await desk.jobs()} == {first.job, second.job}


async def test_a_pause_has_no_slots(desk: Desk) -> None:
    schedule = await desk.make()
    await desk.schedules.pause(schedule)
    await desk.shift(schedule, 3 * HOUR)
    assert await desk.look(schedule) == []
    resumed = await desk.schedules.resume(await desk.schedules.get(TENANT, schedule.id))
    assert await desk.look(resumed) == []
    assert resumed.cursor_ms == pytest.approx(await desk.schedules.now(), abs=60_000)


@pytest.mark.parametrize(("changes", "kept"), [({"name": "x"}, True), ({"cron": "@every 2h"}, False)])
async def test_a_change_of_the_clock_counts_from_then_on_and_another_loses_no_slot(
    desk: Desk, changes: Json, kept: bool
) -> None:
    schedule = await desk.made_before(3 * HOUR, catch_up="all", overlap="allow")
    changed = await desk.schedules.change(schedule, changes)
    assert len(await desk.look(changed)) == (3 if kept else 0)


async def test_a_change_stops_a_look_that_began_before_it(desk: Desk) -> None:
    schedule = await desk.made_before(HOUR)
    found = look(schedule.timing, schedule.cursor_ms, await desk.schedules.now())
    await desk.schedules.change(schedule, {"job": {**schedule.spec.job, "input": "other"}})
    assert await desk.schedules.handle(schedule, found) == []
    await desk.look(schedule)
    assert [job.spec.input for job in await desk.jobs()] == ["other"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda desk: KillSwitches(desk.link).turn_on(f"tenant:{TENANT}", by="k", reason="r"), "kill_switch"),
        (lambda desk: desk.link.command("HDEL", keys.AGENTS, "echo"), "agent_not_found"),
    ],
    ids=["kill switch", "agent gone"],
)
async def test_a_submission_that_is_refused_is_a_slot_that_is_skipped(
    desk: Desk, spoil: Callable[[Desk], Any], reason: str
) -> None:
    schedule = await desk.made_before(HOUR)
    await spoil(desk)
    (row,) = await desk.look(schedule)
    assert (shown(row), row.to_json()["job_id"]) == (f"skipped: {reason}", None)
    assert await desk.jobs() == []
    assert await desk.link.command("ZCARD", keys.FIRING) == 0
    assert await desk.schedules.open_runs(schedule.id) == {}
    counts = await stats.read(desk.link)
    assert {name: n for name, n in counts.items() if "slots" in name} == {"schedule_slots_total|skipped": 1}


async def test_a_newer_run_cancels_one_that_was_slow_to_be_submitted(desk: Desk) -> None:
    schedule = await desk.made_before(2 * HOUR, overlap="cancel_previous", catch_up="all")
    found = look(schedule.timing, schedule.cursor_ms, await desk.schedules.now())
    slow, newest = await desk.schedules.handle(schedule, found)
    launcher = Launcher(desk.schedules, desk.store, AgentCatalogue(desk.link))
    newer = await launcher.submit(schedule.id, newest)
    older = await launcher.submit(schedule.id, slow)
    assert newer is not None
    assert older is not None
    assert (await desk.store.get(TENANT, older.id)).status == "cancelled"
    assert (await desk.store.get(TENANT, newer.id)).status == "queued"


async def test_what_is_removed_is_gone_and_its_jobs_go_on(desk: Desk) -> None:
    schedule = await desk.made_before(2 * HOUR, overlap="queue", catch_up="all")
    await desk.look(schedule)
    await desk.schedules.remove(schedule)
    left = [key.decode() for key in await desk.link.command("KEYS", f"*{schedule.id}*")]
    assert [key for key in left if "meter" not in key] == []
    assert (await desk.jobs())[0].status == "queued"
    with pytest.raises(NotFoundError):
        await desk.schedules.get(TENANT, schedule.id)
    with pytest.raises(NotFoundError):
        await desk.schedules.trigger(schedule)


async def test_a_slot_of_a_schedule_that_was_removed_is_dropped(desk: Desk) -> None:
    schedule = await desk.made_before(HOUR)
    (slot,) = await desk.schedules.handle(
        schedule, look(schedule.timing, schedule.cursor_ms, await desk.schedules.now())
    )
    await desk.schedules.remove(schedule)
    await desk.link.command("ZADD", keys.FIRING, 0, f"{schedule.id} {slot}")
    await desk.scheduler.sweep()
    assert await desk.link.command("ZCARD", keys.FIRING) == 0
    assert await desk.jobs() == []


async def test_pages_of_schedules_and_of_slots(desk: Desk) -> None:
    made = [(await desk.make(name=str(number))).id for number in range(5)]
    found, after = await list_schedules(desk.link, TENANT, limit=3)
    rest, end = await list_schedules(desk.link, TENANT, limit=3, after=after)
    newest_first = sorted([*found, *rest], key=lambda one: (one.created_ms, one.id), reverse=True)
    assert ([*found, *rest], end) == (newest_first, None)
    assert sorted(one.id for one in newest_first) == sorted(made)
    schedule = await desk.made_before(10 * HOUR, overlap="allow", catch_up="all")
    rows = await desk.look(schedule)
    pages: list[Row] = []
    cursor: str | None = None
    while True:
        page, cursor = await list_slots(desk.link, schedule, limit=4, after=cursor)
        pages += page
        if cursor is None:
            break
    assert pages == rows[::-1]


async def test_the_ledger_keeps_the_newest_rows(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.schedules.MOST_ROWS", 3)
    schedule = await desk.made_before(10 * HOUR, catch_up="none")
    rows = await desk.look(schedule)
    assert len(rows) == 3
    assert await desk.link.command("HLEN", keys.slots(schedule.id, "rows")) == 3


async def test_what_is_declared_is_made_once_and_changed_there_alone(desk: Desk) -> None:
    job = {"agent": "echo", "input": "go", "tags": [], "metadata": {}}
    spec = ScheduleSpec("@every 1h", job, name="hourly")
    await asyncio.gather(*(desk.schedules.declare(TENANT, spec) for _ in range(3)))
    ((declared,), _) = await list_schedules(desk.link, TENANT, limit=10)
    with pytest.raises(ConflictError, match="declared"):
        await desk.schedules.change(declared, {"name": "x"})
    await desk.schedules.pause(declared)
    before = await desk.schedules.get(TENANT, declared.id)
    await desk.schedules.declare(TENANT, spec)
    assert await desk.schedules.get(TENANT, declared.id) == before, "nothing is new"
    await desk.schedules.declare(TENANT, ScheduleSpec("@every 2h", job, name="hourly"))
    changed = await desk.schedules.get(TENANT, declared.id)
    assert (changed.spec.cron, changed.state) == ("@every 2h", "paused")


@pytest.mark.parametrize(
    "fields",
    [
        {"cron": "x"},
        {"timezone": "Mars"},
        {"jitter": 7200},
        {"job": {"input": "{{ secret }}"}},
        {"job": {"input": {"a": ["{{ last_run }}"]}}},
    ],
)
async def test_what_is_refused_when_it_is_saved(desk: Desk, fields: Json) -> None:
    with pytest.raises(InvalidError):
        await desk.make(**fields)


async def test_another_tenant_s_is_not_there(desk: Desk) -> None:
    schedule = await desk.make()
    with pytest.raises(NotFoundError) as foreign:
        await desk.schedules.get("other", schedule.id)
    with pytest.raises(NotFoundError) as missing:
        await desk.schedules.get("other", schedule.id[:-1])
    assert foreign.value.code == missing.value.code


async def test_a_run_that_was_cancelled_makes_room(desk: Desk, link: RedisLink) -> None:
    schedule = await desk.made_before(2 * HOUR, overlap="queue", catch_up="all")
    first, second = await desk.look(schedule)
    await actions.cancel(desk.store, TENANT, first.job)
    await desk.look(schedule)
    assert (await desk.store.get(TENANT, second.job)).status == "queued"
