"""Stock RQ 2.12 reads our queues, tickets, executions and workers, and does no harm to them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import rq
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job as RqJob
from rq.job import JobStatus
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from agent_core import Agent, tool
from agent_core.testing import ScriptedModel, calls
from jobs import actions, queue_keys
from jobs.files import FileStore
from jobs.queue import TASK, queue_names
from jobs.records import Job
from jobs.stats import Stats
from jobs.store import JobStore
from tests.jobs.driver import ENDED_LEASE, TENANT, Driver
from worker.executor import Executor
from worker.rq_worker import ConcurrentWorker
from worker.tasks import run_job

QUEUE = "default.default~acme"
DAY = 24 * 3600


@pytest.fixture
def driver(store: JobStore) -> Driver:
    return Driver(store)


@pytest.fixture
def connection(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def fetch(job: Job, connection: redis.Redis) -> RqJob:
    return RqJob.fetch(job.id, connection=connection, serializer=JSONSerializer)


def queue(connection: redis.Redis, name: str = QUEUE) -> rq.Queue:
    return rq.Queue(name, connection=connection, serializer=JSONSerializer)


# ---- tickets


async def test_a_queued_ticket(driver: Driver, connection: redis.Redis) -> None:
    job = await driver.submit()
    ticket = fetch(job, connection)
    assert (ticket.get_status(), ticket.origin, ticket.worker_name) == (JobStatus.QUEUED, QUEUE, None)
    assert (ticket.func_name, ticket.args, ticket.kwargs) == (TASK, [job.id], {})
    assert ticket.enqueued_at is not None
    assert abs(ticket.enqueued_at.timestamp() - time.time()) < 60
    assert queue(connection).job_ids == [job.id]
    assert ticket.get_position() == 0


async def test_queues_and_their_counts(driver: Driver, connection: redis.Redis) -> None:
    for priority in ("high", "default", "default"):
        await driver.submit(priority=priority)
    found = rq.Queue.all(connection=connection, serializer=JSONSerializer)
    lanes = {"default.high~acme": 1, QUEUE: 2}
    assert {q.name: q.count for q in found} == {"default.high": 0, "default.default": 0, **lanes}


async def test_a_started_ticket_and_its_execution(driver: Driver, connection: redis.Redis) -> None:
    job = await driver.submit()
    claim = await driver.claim_one(worker="w1")
    ticket = fetch(job, connection)
    assert (ticket.get_status(), ticket.worker_name) == (JobStatus.STARTED, "w1")
    assert ticket.started_at is not None
    execution = Execution.fetch(claim.token, job.id, connection)
    assert (execution.worker_name, execution.composite_key) == ("w1", claim.member)
    assert abs(execution.created_at.timestamp() - time.time()) < 60
    assert [e.id for e in ExecutionRegistry(job.id, connection).get_executions()] == [claim.token]
    assert [e.id for e in ticket.get_executions()] == [claim.token]
    started = StartedJobRegistry(QUEUE, connection=connection, serializer=JSONSerializer)
    assert (started.get_job_ids(), started.count) == ([job.id], 1)
    assert started.get_job_and_execution_ids() == [(job.id, claim.token)]
    await driver.store.tickets.beat([(job.id, claim.token, QUEUE)], 60)
    assert Execution.fetch(claim.token, job.id, connection).last_heartbeat >= execution.last_heartbeat


@pytest.mark.parametrize(
    ("action", "status", "registry"),
    [
        ("complete", JobStatus.FINISHED, FinishedJobRegistry),
        ("fail", JobStatus.FAILED, FailedJobRegistry),
        ("stop", JobStatus.CANCELED, CanceledJobRegistry),
    ],
)
async def test_an_ended_ticket_is_in_its_registry(
    driver: Driver, connection: redis.Redis, action: str, status: JobStatus, registry: Any
) -> None:
    job, attempt = await driver.start()
    await driver.end(job, attempt, action)
    ticket = fetch(job, connection)
    assert (ticket.get_status(), ticket.worker_name) == (status, None)
    assert registry(QUEUE, connection=connection, serializer=JSONSerializer).get_job_ids() == [job.id]
    assert StartedJobRegistry(QUEUE, connection=connection).get_job_ids() == []
    assert ExecutionRegistry(job.id, connection).get_executions() == []
    with pytest.raises(ValueError, match="not found"):
        Execution.fetch(attempt.token, job.id, connection)
    assert connection.ttl(f"rq:job:{job.id}") > 0
    assert registry(QUEUE, connection=connection).count == 1


async def test_a_retried_job_leaves_the_registry_of_its_ending(driver: Driver, connection: redis.Redis) -> None:
    job, attempt = await driver.start()
    await driver.end(job, attempt, "fail")
    await actions.retry(driver.store, TENANT, job.id)
    assert FailedJobRegistry(QUEUE, connection=connection).get_job_ids() == []
    assert fetch(job, connection).get_status() == JobStatus.QUEUED
    assert connection.ttl(f"rq:job:{job.id}") == -1


@pytest.mark.parametrize("action", ["park", "suspend", "hand_back"])
async def test_a_job_at_rest_is_not_started_for_rq_either(driver: Driver, connection: redis.Redis, action: str) -> None:
    job, attempt = await driver.start()
    await driver.end(job, attempt, action)
    ticket = fetch(job, connection)
    assert ticket.get_status() == (JobStatus.QUEUED if action == "hand_back" else JobStatus.DEFERRED)
    assert ticket.worker_name is None
    assert StartedJobRegistry(QUEUE, connection=connection).count == 0
    with pytest.raises(InvalidJobOperation):
        send_stop_job_command(connection, job.id, serializer=JSONSerializer)


async def test_a_job_that_never_had_a_ticket_leaves_none_behind(driver: Driver, connection: redis.Redis) -> None:
    job = await driver.into("scheduled")
    await driver.store.move(job, "cancel")
    assert connection.keys("rq:*") == []


# ---- RQ's own upkeep


async def test_the_clean_up_of_rq_does_not_touch_our_leases(driver: Driver, connection: redis.Redis) -> None:
    """Also not when no worker of ours has been up for a long time, and so nobody has rescued anything."""
    job, attempt = await driver.start(lease=ENDED_LEASE)
    started = StartedJobRegistry(QUEUE, connection=connection, serializer=JSONSerializer)
    started.cleanup(timestamp=time.time() + 100 * DAY)
    assert started.get_job_ids() == [job.id]
    assert (await driver.store.tickets.overdue()).lost == [(job.id, attempt.token, QUEUE)]
    await driver.rescue(job.id, attempt)
    assert (await driver.claim_one()).job_id == job.id


async def test_rq_empty_loses_no_job(driver: Driver, connection: redis.Redis) -> None:
    jobs = {(await driver.submit()).id for _ in range(3)}
    assert queue(connection).empty() == 3
    assert await driver.claim(10) == []
    found = (await driver.store.tickets.overdue(unticketed_ms=-1000)).unticketed
    assert set(found) == jobs
    for job_id in found:
        assert await driver.store.release(job_id)
    assert {claim.job_id for claim in await driver.claim(10)} == jobs


async def test_rq_suspend_stops_the_claims(driver: Driver, connection: redis.Redis) -> None:
    await driver.submit()
    suspend(connection)
    assert await driver.claim(10) == []
    resume(connection)
    assert len(await driver.claim(10)) == 1


async def test_a_stock_worker_that_takes_a_ticket_is_told_why_it_cannot(
    driver: Driver, connection: redis.Redis
) -> None:
    job = await driver.submit()
    ticket = fetch(job, connection)
    assert ticket.func is run_job
    with pytest.raises(RuntimeError, match="nightshift worker"):
        ticket.func(*ticket.args, **ticket.kwargs)


# ---- a live worker of ours


@tool(effect="read")
async def wait() -> str:
    """Wait for ever."""
    await asyncio.Event().wait()
    return ""


WAITER = Agent(name="waiter", instructions="wait", model="claude-sonnet-5-5", tools=[wait])


@asynccontextmanager
async def live_worker(store: JobStore, redis_url: str, folder: Path) -> AsyncIterator[ConcurrentWorker]:
    """A worker in this process, in the middle of its life."""
    agents = {f"waiter@{WAITER.version}": WAITER}
    model = ScriptedModel([calls(("wait", {}))])
    files = FileStore(store.link, f"file://{folder}")
    worker = ConcurrentWorker(
        queue_names(["default"]),
        connection=redis.Redis.from_url(redis_url, socket_timeout=5),
        executor=Executor(store, files, {"standard": model, "batch": model}, agents.get, Stats(), folder / "work"),
        tickets=store.tickets,
        pools=["default"],
        concurrency=5,
        lease=60,
        grace=0,
        versions=lambda: list(agents),
        side_queues=lambda: [],
    )
    serving = asyncio.create_task(worker.serve())
    try:
        yield worker
    finally:
        worker.drain()
        await asyncio.wait_for(serving, 20)


async def until(store: JobStore, job: Job, event: str) -> None:
    """Returns when the job's journal has an event."""
    async with asyncio.timeout(20):
        while True:
            if event in {line.type for line in await store.lines(job.id)}:
                return
            await asyncio.sleep(0.01)


async def test_rq_sees_a_live_worker_and_can_stop_its_job(
    driver: Driver, store: JobStore, redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    async with live_worker(store, redis_url, tmp_path) as worker:
        job = await driver.submit(agent="waiter", agent_version=WAITER.version)
        await until(store, job, "tool.requested")
        await asyncio.to_thread(worker.beat_worker)

        (seen,) = rq.Worker.all(connection=connection, serializer=JSONSerializer)
        assert (seen.name, seen.get_state()) == (worker.name, "busy")
        assert seen.queue_names() == queue_names(["default"])
        served = queue(connection, "default.default")
        assert [w.name for w in rq.Worker.all(queue=served)] == [worker.name]
        assert StartedJobRegistry(QUEUE, connection=connection).get_job_ids() == [job.id]

        text = await asyncio.to_thread(rq_info, redis_url)
        assert QUEUE in text
        assert worker.name in text
        assert "1 workers" in text
        assert "busy" in text

        send_stop_job_command(connection, job.id, serializer=JSONSerializer)
        await until(store, job, "job.cancelled")
        assert CanceledJobRegistry(QUEUE, connection=connection).get_job_ids() == [job.id]
    assert rq.Worker.all(connection=connection) == []


async def test_our_stop_reaches_the_worker_of_the_job_alone(driver: Driver, connection: redis.Redis) -> None:
    job, _ = await driver.start()
    with connection.pubsub(ignore_subscribe_messages=True) as listener:
        listener.psubscribe("rq:pubsub:*")
        while not listener.subscribed or connection.pubsub_numpat() == 0:
            listener.get_message(timeout=1)
        await actions.cancel(driver.store, TENANT, job.id)
        send_stop_job_command(connection, job.id, serializer=JSONSerializer)
        ours, theirs = [heard(listener) for _ in range(2)]
    assert ours == theirs == ("rq:pubsub:w1", {"command": "stop-job", "job_id": job.id})


def heard(listener: redis.client.PubSub) -> tuple[str, Any]:
    """The channel and the data of the next message."""
    for _ in range(20):
        message = listener.get_message(timeout=1)
        if message is not None:
            return message["channel"].decode(), json.loads(message["data"])
    raise AssertionError("no message")


def rq_info(url: str) -> str:
    """What `rq info` prints."""
    command = [str(Path(sys.executable).with_name("rq")), "info", "--url", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_our_names_of_rqs_keys_are_rqs(connection: redis.Redis) -> None:
    ticket = RqJob("job_1", connection=connection, serializer=JSONSerializer)
    execution = Execution("token", "job_1", connection)
    assert ticket.key == queue_keys.job("job_1")
    assert execution.key == queue_keys.execution("job_1", "token")
    assert ExecutionRegistry("job_1", connection).key == queue_keys.executions("job_1")
    assert queue(connection).key == queue_keys.queue(QUEUE)
    assert rq.Queue.redis_queues_keys == queue_keys.QUEUES
    assert StartedJobRegistry(QUEUE, connection=connection).key == queue_keys.wip(QUEUE)
    for status, registry in (("completed", FinishedJobRegistry), ("failed", FailedJobRegistry),
                             ("cancelled", CanceledJobRegistry), ("expired", CanceledJobRegistry)):  # fmt: skip
        assert registry(QUEUE, connection=connection).key == queue_keys.registry(status, QUEUE)
