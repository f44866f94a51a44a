"""Drives a job store as the API, a worker and a reaper would, in one line each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from agent_core.types import Budget, Json
from jobs import keys, rq_keys
from jobs.errors import ConflictError
from jobs.kill_switch import KillSwitches
from jobs.link import milliseconds
from jobs.moves import Attempt, Idempotency, Moved
from jobs.ports import Store
from jobs.queue import Claim, queue_name, queue_names
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
    if isinstance(driver.store, JobStore):
        await driver.store.link.command("DEL", rq_keys.queue(queue))
    else:
        assert isinstance(driver.store, MemoryStore)
        driver.store.shelf.queues[queue].clear()


async def push_raw(driver: Driver, job: Job) -> None:
    """One more ticket of a job at the end of its queue, whatever the job's status."""
    queue = queue_name(job.spec.pool, job.spec.priority)
    if isinstance(driver.store, JobStore):
        await driver.store.link.command("SADD", rq_keys.QUEUES, rq_keys.queue(queue))
        await driver.store.link.command("RPUSH", rq_keys.queue(queue), job.id)
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


async def suspend(driver: Driver, suspended: bool) -> None:
    """`rq suspend` and `rq resume`."""
    if isinstance(driver.store, JobStore):
        await driver.store.link.command(*(("SET", rq_keys.SUSPENDED, 1) if suspended else ("DEL", rq_keys.SUSPENDED)))
    else:
        assert isinstance(driver.store, MemoryStore)
        driver.store.tickets.suspended = suspended
