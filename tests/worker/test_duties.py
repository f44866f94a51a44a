"""The thread of the background duties, and the threads of tools."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
import structlog

from jobs import queue_keys
from jobs.errors import UnavailableError
from jobs.link import RedisLink
from jobs.queue import Tickets
from tests.worker.conftest import Bench
from worker.duties import Duty, DutyThread
from worker.heartbeat import Member, heartbeat
from worker.threads import ToolThreads, leave


class Events:
    """What duties did, for the test's thread."""

    def __init__(self) -> None:
        self.happened: dict[str, threading.Event] = {}

    def __getitem__(self, name: str) -> threading.Event:
        return self.happened.setdefault(name, threading.Event())


async def waits(events: Events) -> None:
    events["began"].set()
    try:
        await asyncio.Event().wait()
    finally:
        events["ended"].set()


def run_duties(redis_url: str, duties: Callable[[RedisLink], Sequence[Duty]], events: Events) -> DutyThread:
    thread = DutyThread(redis_url, duties, on_failure=events["failed"].set)
    thread.start()
    return thread


def test_duties_end_when_the_thread_is_stopped(redis_url: str):
    events = Events()
    thread = run_duties(redis_url, lambda _: [waits(events)], events)
    assert events["began"].wait(5)
    thread.stop()
    assert events["ended"].wait(5)
    assert not events["failed"].is_set()


def test_a_duty_that_fails_takes_the_others_with_it_and_is_reported(redis_url: str):
    events = Events()

    async def fails() -> None:
        raise ZeroDivisionError

    with structlog.testing.capture_logs() as logs:
        thread = run_duties(redis_url, lambda _: [waits(events), fails()], events)
        assert events["failed"].wait(5)
    assert events["ended"].is_set()
    assert [entry["event"] for entry in logs] == ["a background duty failed"]
    thread.stop()


async def test_the_heartbeat_goes_on_after_an_outage_and_passes_verdicts_on(bench: Bench):
    job_id = await bench.submit()
    claim = await bench.claim()
    mine: Member = (claim.job_id, claim.token, claim.queue)
    not_mine: Member = (claim.job_id, "0" * 32, claim.queue)
    await bench.store.flag(await bench.job(job_id), "pause")
    heard: list[tuple[Member, int]] = []
    done = asyncio.Event()

    class Shaky(Tickets):
        outages = 2

        async def beat(self, members: Sequence[Member], lease: int) -> list[int]:
            if self.outages:
                self.outages -= 1
                raise UnavailableError("away")
            return await super().beat(members, lease)

    def on_verdict(member: Member, verdict: int) -> None:
        heard.append((member, verdict))
        if len(heard) == 2:
            done.set()

    await bench.end_lease(claim)
    tickets = Shaky(bench.store.link)
    beating = asyncio.create_task(heartbeat(tickets, 1, lambda: [mine, not_mine], on_verdict))
    await asyncio.wait_for(done.wait(), 10)
    beating.cancel()
    assert heard == [(mine, 2), (not_mine, -1)]
    score = float(await bench.store.link.command("ZSCORE", queue_keys.wip(claim.queue), claim.member))
    assert score > 0


@pytest.fixture
def stuck() -> threading.Event:
    return threading.Event()


async def test_a_tool_that_hangs_does_not_keep_the_worker_from_its_threads(stuck: threading.Event):
    threads = ToolThreads()
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        stuck.wait()

    hanging = asyncio.create_task(asyncio.to_thread(hang))
    await asyncio.to_thread(begun.wait, 5)
    threads.leave_behind()
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 42), 5) == 42
    assert not hanging.done()
    stuck.set()
    await hanging
    assert leave(7) == 7
