"""Puts a worker process together: settings in, one running worker out. Every object is made here and handed on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import redis
import structlog

from agent_core.agent import Agent
from agent_core.batch import BatchModel
from agent_core.claude import MessageBatches
from agent_core.redaction import Redactor
from jobs import fleet
from jobs.agents import AgentCatalogue
from jobs.audit_log import AuditLog
from jobs.batches import BatchWaits
from jobs.breaker import FleetBreakers
from jobs.durability import look
from jobs.errors import JobsError, UnavailableError
from jobs.files import FileStore
from jobs.keyring import DEFAULT_TENANT
from jobs.kill_switch import KillSwitches
from jobs.link import RedisLink, connect
from jobs.mcp import McpPins
from jobs.queue import Tickets, queue_names, serves
from jobs.retention import DAY_MS, Retention
from jobs.schedules import Schedules, ScheduleSpec
from jobs.stats import Stats
from jobs.store import JobStore
from memory.errors import MemoryLayerError
from memory.setup import LazyMemory
from worker.alerts import Alerter, make_notifier, thresholds
from worker.approvals import ApprovalWatch
from worker.audit import prune_audit_logs
from worker.batches import BatchWatch
from worker.breaker import watch_breakers
from worker.duties import Duty, DutyThread
from worker.embedding import make_charge
from worker.errors import StartError
from worker.executor import Executor
from worker.heartbeat import Member, heartbeat
from worker.job_memory import EXTRACTION
from worker.kill_switch import obey_kill_switches
from worker.loader import load, published, runnable
from worker.mcp_tools import McpTools
from worker.memory_pruner import pruning
from worker.metrics import serve_metrics
from worker.models import make_model, make_servers, warm_up
from worker.pruner import Pruner
from worker.reaper import Reaper
from worker.rq_worker import ConcurrentWorker
from worker.settings import Settings, environment
from worker.webhooks import make_dispatcher

log = structlog.get_logger("worker")
REPORT_SECONDS = 1.0


@dataclass(slots=True)
class Known:
    """What the worker can run at the moment; refreshed by a duty."""

    local: dict[str, Agent]
    mcp: McpTools
    built_in: dict[str, Agent] = field(default_factory=dict)
    """Agents of the platform, which are published when they are first needed."""
    agents: dict[str, Agent] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    side_queues: list[str] = field(default_factory=list)


async def run_worker(settings: Settings) -> None:
    """Runs one worker process until it is told to stop. Raises StartError when it cannot start, CancelledError when it
    is told to stop while it still waits for Redis.
    """
    stop_starting()
    loaded = load(settings.agents)
    known = Known(loaded.agents, McpTools(loaded.agents.values(), environment()), built_in(loaded.agents))
    model, servers = make_model(settings), make_servers(settings)
    link = RedisLink(connect(settings.redis_url), patient=True)
    breakers = FleetBreakers(link)
    claim_link = RedisLink(connect(settings.redis_url))
    stats = Stats()
    memory = LazyMemory(settings, make_charge(settings))
    try:
        await look_at_redis(settings)
        await open_memory(memory, known)
        await known.mcp.start(McpPins(link), on_change=lambda: publish(link, known))
        await publish(link, known)
        await declare(link, loaded.schedules)
        warm_up(model, servers, known.agents)
        store, claims = JobStore(link), Tickets(claim_link)  # claiming and recording then overlap
        executor = Executor(
            store,
            FileStore(link, settings.files_location),
            {"standard": model, "batch": BatchModel(model)},
            known.agents.get,
            stats,
            workspaces(settings),
            Redactor(settings.secrets),
            servers,
            breakers,
            memory,
        )
        worker = ConcurrentWorker(
            queue_names(settings.pools),
            connection=connect(settings.redis_url),
            executor=executor,
            tickets=claims,
            pools=settings.pools,
            concurrency=settings.concurrency,
            lease=settings.lease_seconds,
            grace=settings.drain_seconds,
            versions=lambda: list(known.agents),
            side_queues=lambda: known.side_queues,
        )
        remembers = known.built_in and memory.is_set_up
        async with pruning(memory, settings.memory_unused_days) if remembers else nullcontext():
            await serve(worker, settings, known, stats, breakers)
    finally:
        await known.mcp.aclose()
        await memory.aclose()
        closing = (server.aclose() for server in servers.values())
        await asyncio.gather(link.aclose(), claim_link.aclose(), model.aclose(), *closing)


def workspaces(settings: Settings) -> Path:
    """Where jobs have their working directories on this machine."""
    return settings.data_dir / "work"


def stop_starting() -> None:
    """Lets a signal end the start; the worker takes the signals over once it serves."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def serve(
    worker: ConcurrentWorker, settings: Settings, known: Known, stats: Stats, breakers: FleetBreakers
) -> None:
    """Runs the worker with its background duties beside it."""
    notifier = make_notifier(settings)

    def duties(link: RedisLink) -> Sequence[Duty]:
        return [
            heartbeat(
                Tickets(link), settings.lease_seconds, lambda: members(worker), lambda m, v: verdict(worker, m, v)
            ),
            Reaper(JobStore(link), stats, settings.lease_seconds).run(),
            obey_kill_switches(
                KillSwitches(link),
                lambda: list(worker.running.values()),
                lambda attempted: worker.call_soon(attempted.interrupt, "killed"),
            ),
            watch_batches(link, settings),
            watch_breakers(breakers, link),
            ApprovalWatch(JobStore(link)).run(),
            make_dispatcher(link, settings, stats).run(),
            *([make_pruner(link, settings).run()] if settings.retention_days else []),
            *([prune_audit_logs(AuditLog(link), settings.audit_days * DAY_MS)] if settings.audit_days else []),
            *([Alerter(link, thresholds(settings), notifier, stats).run()] if notifier.names else []),
            report(link, worker, settings, known, stats),
        ]

    stop_metrics = serve_metrics_if_asked(settings, worker)
    thread = DutyThread(settings.redis_url, duties, on_failure=lambda: worker.call_soon(worker.drain))
    thread.start()
    try:
        log.info("worker started", name=worker.name, agents=sorted(known.agents), pools=settings.pools)
        await worker.serve()
    finally:
        await asyncio.to_thread(thread.stop)
        await asyncio.to_thread(stop_metrics)


async def watch_batches(link: RedisLink, settings: Settings) -> None:
    """The duty that looks after batches. It has a client of its own, for a client belongs to one event loop."""
    model = make_model(settings)
    try:
        await BatchWatch(BatchWaits(link), JobStore(link), MessageBatches(model.client)).run()
    finally:
        await model.aclose()


def make_pruner(link: RedisLink, settings: Settings) -> Pruner:
    """The duty that removes what has been kept long enough."""
    files = FileStore(link, settings.files_location)
    return Pruner(link, files, Retention(link, files, settings.retention_days * DAY_MS), workspaces(settings))


def serve_metrics_if_asked(settings: Settings, worker: ConcurrentWorker) -> Callable[[], None]:
    """Starts the metrics server of this process; returns what stops it. Raises StartError."""
    if settings.metrics_port is None:
        return lambda: None
    try:
        return serve_metrics(
            settings.metrics_host, settings.metrics_port, lambda: len(worker.running), settings.concurrency
        )
    except OSError as exc:
        at = f"{settings.metrics_port} on {settings.metrics_host} (NIGHTSHIFT_METRICS_HOST)"
        raise StartError(f"NIGHTSHIFT_METRICS_PORT: {at} cannot be served: {exc.strerror}") from exc


def built_in(agents: Mapping[str, Agent]) -> dict[str, Agent]:
    """The platform's own agents that a worker with these ones runs as well."""
    learning = [agent for agent in agents.values() if agent.user_memory is not None]
    if not learning:
        return {}
    from worker.extraction import extraction_agent  # Qdrant's client takes a second or two to load

    return {EXTRACTION: extraction_agent(learning[0].model)}


async def open_memory(memory: LazyMemory, known: Known) -> None:
    """Opens long-term memory before the first job needs it, which waits for it no longer than for an answer."""
    if not known.built_in or not memory.is_set_up:
        return
    try:
        await memory.get()
    except MemoryLayerError as exc:
        log.warning("jobs begin without long-term memory until it is there", error=str(exc))


async def publish(link: RedisLink, known: Known) -> None:
    """Publishes the worker's own agents and learns which published versions it can run."""
    catalogue = AgentCatalogue(link)
    await catalogue.publish([published(agent) for agent in known.mcp.bound(known.local.values())])
    await refresh(link, known)


async def declare(link: RedisLink, specs: Sequence[ScheduleSpec]) -> None:
    """Makes the schedules that the worker's modules declare, or changes them to what they declare now."""
    for spec in specs:
        await Schedules(link).declare(DEFAULT_TENANT, spec)


async def look_at_redis(settings: Settings) -> None:
    """Waits until Redis answers and says what is lost when it is.

    Raises StartError for a Redis that evicts, or that refuses the password.
    """
    client = connect(settings.redis_url)
    try:
        while True:
            try:
                found = await asyncio.to_thread(look, client)
                break
            except UnavailableError as exc:
                raise StartError(f"NIGHTSHIFT_REDIS_URL is wrong: {exc}") from exc
            except redis.ConnectionError as exc:
                log.warning("Redis does not answer yet", error=str(exc))
                await asyncio.sleep(REPORT_SECONDS)
    finally:
        await asyncio.to_thread(client.close)
    (log.info if found.sound else log.warning)("durability", promise=found.promise)


async def refresh(link: RedisLink, known: Known) -> None:
    """Looks again at which versions there are, and which side queues hold jobs for this worker."""
    fresh = await AgentCatalogue(link).all_versions(known.seen)
    known.seen.update(f"{version.name}@{version.version}" for version in fresh)
    known.agents.update(runnable(fresh, known.local | known.built_in, known.mcp.tool))
    queues = await Tickets(link).side_queues()
    known.side_queues = [name for name in queues if serves(known.agents, name)]


def members(worker: ConcurrentWorker) -> list[Member]:
    """What the worker holds leases of."""
    return [(a.claim.job_id, a.claim.token, a.claim.queue) for a in list(worker.running.values())]


def verdict(worker: ConcurrentWorker, member: Member, answer: int) -> None:
    """Carries out what a heartbeat learned of an attempt."""
    attempted = worker.running.get(f"{member[0]}:{member[1]}")
    if attempted is None:
        return
    if answer == 2:
        if attempted.journal is not None:
            worker.call_soon(attempted.journal.request_pause)
        return
    worker.call_soon(attempted.interrupt, "lost" if answer < 0 else "cancel")


async def report(link: RedisLink, worker: ConcurrentWorker, settings: Settings, known: Known, stats: Stats) -> None:
    """Tells the fleet each second that this worker is alive, what it serves, and what it has counted."""
    ttl = max(5, settings.lease_seconds)
    try:
        while True:
            try:
                await refresh(link, known)
                await stats.flush(link)
                await fleet.report(link, describe(worker, settings, known), ttl)
                await asyncio.to_thread(worker.beat_worker)
            except (JobsError, redis.RedisError) as exc:
                log.warning("report: %s", exc)
            await asyncio.sleep(REPORT_SECONDS)
    finally:
        await stats.flush(link)
        await fleet.forget(link, worker.name)


def describe(worker: ConcurrentWorker, settings: Settings, known: Known) -> fleet.WorkerReport:
    """The worker's report of itself."""
    return fleet.WorkerReport(
        name=worker.name,
        host=socket.gethostname(),
        pid=os.getpid(),
        pools=settings.pools,
        versions=sorted(known.agents),
        concurrency=settings.concurrency,
        running=len(worker.running),
        draining=worker.draining.is_set(),
        simulated=settings.simulate,
        mcp_away=known.mcp.away(),
    )
