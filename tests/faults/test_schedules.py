"""Schedulers die, and their clocks are wrong: no slot fires twice, and none is missed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs import keys, stats
from jobs.agents import AgentCatalogue
from jobs.link import RedisLink
from jobs.listing import list_slots
from jobs.schedules import Row, Schedules, ScheduleSpec
from jobs.store import JobStore
from tests.faults.conftest import DURABLE
from tests.integration.harness import WorkerProcess, become, eventually, open_link
from tests.redis_server import RedisServer
from worker.loader import load_agents, published

AGENTS = str(Path(__file__).with_name("approvals.py"))
TENANT = "default"
HOUR = 3600.0
CLOCKS = (-HOUR, 0.0, HOUR)
"""By how many seconds the clock of each scheduler is wrong."""
POINTS = ("after_slots", "after_slot_submit")


def serve_scheduler(settings: dict[str, str], log: str) -> None:
    """The body of a scheduler process: the entry of `nightshift scheduler`, with a clock that is wrong."""
    become(settings, log)
    wrong = float(os.environ.pop("WRONG_BY"))
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + wrong
    time.time_ns = lambda: right_ns() + int(wrong * 1e9)
    from jobs.settings import CommonSettings, load
    from worker.scheduler import serve

    sys.exit(serve(load(CommonSettings)))


@dataclass
class Fleet:
    """Three schedulers, one of which is killed now and then, on a Redis that outlives them."""

    redis: RedisServer
    link: RedisLink
    folder: Path
    kills: int = 0
    started: int = 0

    def start(self, wrong_by: float, failpoints: str = "") -> WorkerProcess:
        settings = {
            "NIGHTSHIFT_REDIS_URL": self.redis.url,
            "NIGHTSHIFT_FAILPOINTS": failpoints,
            "WRONG_BY": str(wrong_by),
        }
        self.started += 1
        return WorkerProcess(settings, self.folder / f"scheduler-{self.started}.log", serve_scheduler)

    async def run(self, seconds: float, every: float) -> None:
        """Runs them for so long, kills one each `every` seconds, and lets one die at each failpoint."""
        alive = [self.start(clock) for clock in CLOCKS]
        alive += [self.start(clock, f"{point}=kill@3") for clock, point in zip(CLOCKS, POINTS, strict=False)]
        end, number = time.monotonic() + seconds, 0
        try:
            while time.monotonic() < end:
                await asyncio.sleep(min(every, end - time.monotonic()))
                victim = number % len(CLOCKS)
                alive[victim].kill()
                alive[victim] = self.start(CLOCKS[victim])
                self.kills, number = self.kills + 1, number + 1
            for dying in alive[len(CLOCKS) :]:
                assert await dying.exited(within=20) == -9, dying.tail()
                self.kills += 1
        finally:
            for process in alive:
                process.kill()


@pytest.fixture
async def fleet(durable_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    link = open_link(durable_redis.url)
    yield Fleet(durable_redis, link, tmp_path)
    await link.aclose()


@pytest.fixture
def durable_redis() -> Iterator[RedisServer]:
    server = RedisServer(Path(tempfile.mkdtemp(prefix="ns-")))
    server.start(*DURABLE)
    yield server
    server.kill()
    shutil.rmtree(server.directory, ignore_errors=True)


@pytest.mark.parametrize(
    ("schedules", "cron", "period", "seconds", "every"),
    [
        pytest.param(10, "* * * * * *", 1, 4, 1.0, id="short"),
        pytest.param(500, "* * * * *", 60, 600, 10.0, id="long", marks=pytest.mark.chaos),
    ],
)
async def test_each_slot_fires_once(
    fleet: Fleet, schedules: int, cron: str, period: int, seconds: float, every: float, report: Callable[..., None]
) -> None:
    link = fleet.link
    await AgentCatalogue(link).publish([published(a) for a in load_agents([AGENTS]).values()])
    job = {"agent": "gatekeeper", "input": "{{ scheduled_at }}", "tags": [], "metadata": {}}
    made = [
        await Schedules(link).create(
            TENANT, ScheduleSpec(cron, job, overlap="allow", catch_up="all", jitter=period // 2)
        )
        for _ in range(schedules)
    ]
    await fleet.run(seconds, every)
    for schedule in made:
        await Schedules(link).pause(await Schedules(link).get(TENANT, schedule.id))
    last = fleet.start(0.0)

    async def settled() -> bool:
        return int(await link.command("ZCARD", keys.FIRING)) == 0

    await eventually(settled, "the slots that the dead left behind", within=30)
    last.kill()

    fired, missed, twice, total = 0, 0, 0, Counter[str]()
    jobs = await all_jobs(link)
    for schedule in made:
        rows = await all_rows(link, schedule.id)
        until = (await Schedules(link).get(TENANT, schedule.id)).cursor_ms
        slots = [row.at for row in rows]
        first = schedule.created_ms // 1000 // period * period * 1000 + period * 1000
        missed += len(set(range(first, until + 1, period * 1000)) - set(slots))
        total.update(row.outcome for row in rows)
        expected = Counter({row.to_json()["scheduled_at"]: 1 for row in rows})
        found = jobs.get(schedule.id, Counter())
        missed += sum((expected - found).values())
        twice += sum((found - expected).values())
        fired += sum(found.values())
    assert (missed, twice) == (0, 0), total
    assert set(total) <= {"fired", "late", "caught_up"}
    assert fired == sum(total.values()) >= 0.5 * schedules * seconds / period
    counts = await stats.read(link)
    assert {name: counts[f"schedule_slots_total|{name}"] for name in total} == dict(total)
    report("cron once", schedules=schedules, slots=fired, kills=fleet.kills, duplicates=twice, misses=missed, **total)


async def all_rows(link: RedisLink, schedule_id: str) -> list[Row]:
    schedule = await Schedules(link).get(TENANT, schedule_id)
    rows: list[Row] = []
    cursor: str | None = None
    while True:
        page, cursor = await list_slots(link, schedule, limit=200, after=cursor)
        rows += page
        if cursor is None:
            return rows


async def all_jobs(link: RedisLink) -> dict[str, Counter[str]]:
    """How many jobs each schedule has of each time."""
    found: dict[str, Counter[str]] = {}
    ids = [one.decode() for one in await link.command("ZRANGE", keys.all_jobs(TENANT), 0, -1)]
    for job in await JobStore(link).get_many(ids):
        assert job is not None
        about = job.spec.metadata
        assert job.spec.input == about["scheduled_at"]
        found.setdefault(about["schedule_id"], Counter())[about["scheduled_at"]] += 1
    return found
