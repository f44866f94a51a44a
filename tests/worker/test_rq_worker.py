"""What RQ may say to the worker, and the order in which it serves its queues."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent_core.testing import ScriptedModel
from jobs import fleet
from jobs.link import RedisLink, connect
from jobs.queue import Tickets, queue_names
from tests.worker.conftest import Bench
from worker.executor import Attempted
from worker.mcp_tools import McpTools
from worker.rq_worker import ConcurrentWorker, in_order
from worker.runtime import Known, report
from worker.settings import Settings
from worker.tasks import run_job


def test_side_queues_come_before_their_queue_and_those_of_other_pools_not_at_all():
    queues = queue_names(["gpu", "default"])
    side = ["default.low@x@1", "gpu.high@x@1", "gpu.high@y@2", "secret.high@x@1"]
    assert in_order(queues, side) == [
        "gpu.high@x@1", "gpu.high@y@2", "gpu.high", "default.high", "gpu.default", "default.default", "gpu.low",
        "default.low@x@1", "default.low",
    ]  # fmt: skip


@pytest.fixture
async def worker(bench: Bench, redis_url: str) -> AsyncIterator[ConcurrentWorker]:
    waiting = RedisLink(connect(redis_url))
    made = ConcurrentWorker(
        queue_names(["default"]),
        connection=connect(redis_url),
        executor=bench.executor(ScriptedModel([])),
        tickets=Tickets(waiting),
        pools=["default"],
        concurrency=2,
        lease=5,
        grace=0,
        versions=lambda: [f"x@{bench.agent.version}"],
        side_queues=list,
    )
    made._loop = asyncio.get_running_loop()  # what `serve` begins with
    yield made
    made.connection.close()
    await waiting.aclose()


def message(**payload: str) -> dict[str, str]:
    return {"data": json.dumps({"created_at": "now", **payload})}


async def test_the_stop_command_interrupts_the_job_that_it_names(worker: ConcurrentWorker, bench: Bench):
    for _ in range(2):
        await bench.submit()
    first, second = [Attempted(await bench.claim()) for _ in range(2)]
    worker.running = {a.claim.member: a for a in (first, second)}
    await asyncio.to_thread(worker.handle_payload, message(command="stop-job", job_id=second.claim.job_id))
    await asyncio.sleep(0)
    assert (first.reason, second.reason) == (None, "cancel")


async def test_the_shutdown_command_drains(worker: ConcurrentWorker):
    await asyncio.to_thread(worker.handle_payload, message(command="shutdown"))
    await asyncio.wait_for(worker.draining.wait(), 5)


@pytest.mark.parametrize("data", ["no json", "[]", "{}", None, '{"command": "kill-horse"}'])
async def test_a_command_that_means_nothing_here_is_ignored(worker: ConcurrentWorker, data: str | None):
    worker.handle_payload({"data": data})
    await asyncio.sleep(0)
    assert not worker.draining.is_set()


async def test_the_report_outlives_a_connection_of_rq_that_is_away(
    worker: ConcurrentWorker, bench: Bench, tmp_path: Path
):
    assert worker.connection.connection_pool.connection_kwargs["socket_timeout"] == 5
    link = bench.store.link
    await asyncio.to_thread(worker.register_birth)
    worker.connection.close()
    worker.connection = connect(f"unix://{tmp_path}/nobody.sock")
    given: dict[str, Any] = {"lease_seconds": 5}
    settings = Settings(**given)
    with structlog.testing.capture_logs() as logs:
        reporting = asyncio.create_task(report(link, worker, settings, Known({}, McpTools([], {})), bench.stats))
        async with asyncio.timeout(10):
            while len(logs) < 2:
                await asyncio.sleep(0.01)
                assert not reporting.done()
    assert [found.name for found in await fleet.workers(link)] == [worker.name]
    reporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reporting
    assert await fleet.workers(link) == []


async def test_a_report_that_comes_before_the_registration_does_not_stand_in_its_way(
    worker: ConcurrentWorker, bench: Bench
):
    """RQ refuses to register a worker under a name of which it has a record."""
    link = bench.store.link
    await asyncio.to_thread(worker.beat_worker)
    assert await link.command("EXISTS", worker.key) == 0
    await asyncio.to_thread(worker.register_birth)
    await asyncio.to_thread(worker.beat_worker)
    assert await link.command("HGET", worker.key, "state") == b"idle"


def test_a_ticket_that_a_stock_worker_took_says_what_to_do():
    with pytest.raises(RuntimeError, match="stop this RQ worker"):
        run_job("job_1")


async def test_rqs_own_way_in_says_how_to_start_it(worker: ConcurrentWorker):
    with pytest.raises(NotImplementedError, match="nightshift worker"):
        worker.work()
