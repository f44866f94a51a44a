"""Drives a job store as the API, a worker and a reaper would, in one line each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from agent_core.types import Budget, Json
from jobs import keys, queue_keys
from jobs.errors import ConflictError
from jobs.kill_switch import KillSwitches
from jobs.lanes import lane_of, queue_name
from jobs.link import milliseconds
from jobs.moves import Attempt, Idempotency, Moved
from jobs.ports import Store
from jobs.queue import Claim, queue_names
from jobs.records import Job, JobSpec
from jobs.status import TRANSITIONS, Status
from jobs.store import JobStore
from jobs.testing import MemoryStore

TENANT = "acme"
OUTLIVES_JOBS = (
    keys.METER_PREFIX,
    keys.USAGE_PREFIX,
    keys.CHARGED_PREFIX,
    keys.KILL_EVIDENCE_PREFIX,
    keys.SAMPLES_PREFIX,
    keys.TENANTS,
)
"""How keys begin that are of tenants, and not of any one job."""
HOUR_MS = 3_600_000
ENDED_LEASE = -1
"""Seconds of a lease that has ended when it begins: so no test waits for one."""
SPEC = JobSpec(agent="clerk", input="file this", agent_version="1")
VERSION = "clerk@1"
PATHS: dict[Status, str | None] = {
    "queued": None,
    "running": None,
    "requires_action": "park",
    "paused": "suspend",
    "completed": "complete",
    "failed": "fail",
    "cancelled": "stop",
}
"""The move that brings a running job into a status."""


class Driver:
    """Acts on `store`; jobs are the tenant's unless said otherwise."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def submit(
        self,
        *,
        key: Idempotency | None = None,
        tenant: str = TENANT,
        budget: Budget | None = None,
        parent: Job | None = None,
        **fields: Any,
    ) -> Job:
        spec = replace(SPEC, **fields)
        spec = spec if parent is None else spec.under(parent)
        submitted = await self.store.submit(tenant, spec, budget or Budget(), idempotency=key)
        return submitted.job

    async def claim(
        self,
        most: int = 1,
        *,
        lease: int = 60,
        queues: Sequence[str] | None = None,
        versions: Sequence[str] = (VERSION,),
        worker: str = "w1",
    ) -> list[Claim]:
        names = queue_names(["default"]) if queues is None else queues
        return await self.store.tickets.claim(names, versions, most=most, lease=lease, worker=worker)

    async def start(self, *, lease: int = 60, **spec: Any) -> tuple[Job, Attempt]:
        """A running job; there must be no other ticket."""
        job = await self.submit(**spec)
        claim = await self.claim_one(lease=lease)
        assert claim.job_id == job.id
        assert claim.job is not None
        return claim.job, attempt_of(claim)

    async def claim_one(self, **how: Any) -> Claim:
        (claim,) = await self.claim(1, **how)
        return claim

    async def into(self, status: Status, *, spare_ticket: bool = False, **spec: Any) -> Job:
        """A job in a status. `spare_ticket` leaves one more ticket of it in its queue than there should be."""
        if status == "scheduled":
            return await self.get(await self.submit(run_at=milliseconds() + HOUR_MS, **spec))
        job = await self.submit(**spec)
        if spare_ticket:
            await push_raw(self, job)
        if status == "expired":
            await self.store.move(job, "expire")
        elif status != "queued":
            claim = await self.claim_one()
            if move := PATHS[status]:
                await self.store.move(job, move, attempt=attempt_of(claim))
        return await self.get(job)

    async def end(
        self, job: Job, attempt: Attempt, action: str = "complete", data: Json | None = None, **how: Any
    ) -> Moved | None:
        return await self.store.move(job, action, data, attempt=attempt, **how)

    async def write(self, job: Job, attempt: Attempt, number: int, *texts: str, **counters: int) -> int:
        """A numbered write of one line for each text."""
        lines: list[tuple[str, Json]] = [("state.changed", {"state": text}) for text in texts]
        return await self.store.record(job.id, attempt.token, number, counters, lines)

    async def get(self, job: Job) -> Job:
        return await self.store.get(TENANT, job.id)

    async def status(self, job: Job) -> Status:
        return (await self.get(job)).status

    async def types(self, job: Job) -> list[str]:
        return [line.type for line in await self.store.lines(job.id)]

    async def states(self, job: Job) -> list[str]:
        """What attempts have written with `write`."""
        return [line.data["state"] for line in await self.store.lines(job.id) if line.type == "state.changed"]

    async def tickets(self) -> int:
        return sum((await self.store.tickets.depths()).values())

    async def rescue(self, job_id: str, attempt: Attempt) -> Moved | None:
        job = await self.store.get(None, job_id)
        return await self.store.move(job, "rescue", attempt=attempt, if_lease_ended=True, lost=True)

    async def sweep(self) -> None:
        """What a reaper does about jobs that are due, expired or without a ticket."""
        found = await self.store.tickets.overdue(unticketed_ms=-HOUR_MS)
        for job_id in found.due:
            job = await self.store.get(None, job_id)
            if job.status == "scheduled":
                await self.store.move(job, "due")
            elif job.status == "paused":
                await self.store.move(job, "resume")
            else:
                await self.store.undefer(job_id)
                await self.store.release(job_id)
        for job_id in found.expired:
            with suppress(ConflictError):
                await self.store.move(await self.store.get(None, job_id), "expire", stop_reason="expired")
        for job_id in found.unticketed:
            await self.store.release(job_id)


def attempt_of(claim: Claim) -> Attempt:
    return Attempt(claim.token, claim.queue)


def allowed(status: Status, action: str) -> bool:
    return status in TRANSITIONS[action].sources


# ---- what someone with access to Redis may do, on either store


async def lose_tickets(driver: Driver, queue: str) -> None:
    """Empties a queue behind the platform's back, as a crash of something else or `rq empty` would."""
    names = (queue, lane_of(queue, TENANT))
    if isinstance(driver.store, JobStore):
        await driver.store.link.command("DEL", *map(queue_keys.queue, names))
    else:
        assert isinstance(driver.store, MemoryStore)
        for name in names:
            driver.store.shelf.queues.get(name, []).clear()


async def push_raw(driver: Driver, job: Job) -> None:
    """One more ticket of a job, whatever its status, in the queue itself, as before there were lanes."""
    queue = queue_name(job.spec.pool, job.spec.priority)
    if isinstance(driver.store, JobStore):
        await driver.store.link.command("SADD", queue_keys.QUEUES, queue_keys.queue(queue))
        await driver.store.link.command("RPUSH", queue_keys.queue(queue), job.id)
    else:
        assert isinstance(driver.store, MemoryStore)
        driver.store.shelf.queues.setdefault(queue, []).append(job.id)


async def turn(driver: Driver, switch: str, *, on: bool) -> None:
    """Turns a kill switch on or off."""
    if isinstance(driver.store, JobStore):
        switches = KillSwitches(driver.store.link)
        await (switches.turn_on(switch, by="key_1") if on else switches.turn_off(switch))
    else:
        assert isinstance(driver.store, MemoryStore)
        memory = driver.store.shelf.switches
        (memory.turn_on if on else memory.turn_off)(switch)


async def limit(driver: Driver, **running: int | None) -> None:
    """Sets limits of the jobs of the tenant that run: of `tenant` as a whole, or of an agent by its name."""
    fields = {"running" if name == "tenant" else f"running:agent:{name}": most for name, most in running.items()}
    if isinstance(driver.store, JobStore):
        for field, most in fields.items():
            words = ("HDEL", keys.limits(TENANT), field) if most is None else ("HSET", keys.limits(TENANT), field, most)
            await driver.store.link.command(*words)
    else:
        assert isinstance(driver.store, MemoryStore)
        limits = driver.store.shelf.lanes.limits[TENANT]
        limits.update({field: most for field, most in fields.items() if most is not None})
        for field in [field for field, most in fields.items() if most is None]:
            limits.pop(field, None)


async def suspend(driver: Driver, suspended: bool) -> None:
    """`rq suspend` and `rq resume`."""
    if isinstance(driver.store, JobStore):
        key = queue_keys.SUSPENDED
        await driver.store.link.command(*(("SET", key, 1) if suspended else ("DEL", key)))
    else:
        assert isinstance(driver.store, MemoryStore)
        driver.store.tickets.suspended = suspended
