"""Rescues jobs: of workers that are gone, without a ticket, due, or past their expiry; and ends the children that
ended jobs left behind. Every worker runs one; for each job exactly one wins, for each move is decided inside Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import redis
import structlog

from agent_core.failpoints import failpoint
from jobs.actions import cancel_children
from jobs.errors import ConflictError, JobsError, NotFoundError, StaleAttemptError, UnavailableError
from jobs.moves import Attempt, Moved
from jobs.ports import Store
from jobs.queue import FROM_THE_START, MOST_OVERDUE, Overdue, PassOver
from jobs.records import DamagedRecordError, Job
from jobs.stats import Stats

log = structlog.get_logger("worker")
MOST_LOST = 3
"""A job that has lost its worker this often, and has completed no turn in between, is set aside as poison."""
SWEEP_SECONDS = 1.0
TICKET_CHECK = 10
"""Queued jobs are looked at for a lost ticket in one of this many sweeps: it costs a look at each."""


class Reaper:
    """Sweeps every second. After a silence, of Redis or of its own process, it waits for one lease of unbroken contact
    before it takes a job from anyone, so that live workers can beat first.
    """

    def __init__(self, store: Store, stats: Stats, lease: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._stats = stats
        self._lease = lease
        self._clock = clock
        self._contact_since = self._last_contact = clock()
        self._sweeps = 0
        self._skip = FROM_THE_START

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            try:
                await self.sweep()
            except UnavailableError as exc:
                log.warning("reaper: %s", exc)
            except JobsError:
                log.exception("a sweep failed")
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> Overdue:
        """One sweep; returns what it found."""
        found = await self._store.tickets.overdue(skip=self._skip)
        await self._store.tickets.sweep_limits()
        in_contact = self._unbroken_contact() >= self._lease
        for job_id in found.due:
            await self._quietly(self._due(job_id), job_id)
        for job_id in found.expired:
            await self._quietly(self._expire(job_id), job_id)
        for job_id in found.orphans:
            await self._quietly(self._end_children(job_id), job_id)
        self._sweeps += 1
        looks_for_tickets = self._sweeps % TICKET_CHECK == 0
        if looks_for_tickets:
            for job_id in found.unticketed:
                await self._quietly(self._release(job_id), job_id)
        if in_contact:
            for job_id, token, queue in found.lost:
                await self._quietly(self.rescue(job_id, Attempt(token, queue)), job_id, token, queue)
        self._skip = PassOver(
            due=_behind(self._skip.due, found.due),
            expired=_behind(self._skip.expired, found.expired),
            unticketed=_behind(self._skip.unticketed, found.unticketed) if looks_for_tickets else self._skip.unticketed,
        )
        self._last_contact = self._clock()
        return found

    def _unbroken_contact(self) -> float:
        """Seconds since when Redis has answered without a silence; called as it answers.

        An answer that was long in coming is the end of a silence, as one after a failure is: while it was on its way,
        no worker could beat.
        """
        now = self._clock()
        if now - self._last_contact > SWEEP_SECONDS + self._lease / 3:
            self._contact_since = now
        self._last_contact = now
        return now - self._contact_since

    async def rescue(self, job_id: str, attempt: Attempt) -> bool:
        """Takes a job from an attempt whose lease has ended; whether this reaper was the one."""
        job = await self._store.get(None, job_id)
        failpoint("before_rescue")
        if job.flag == "cancel":
            moved = await self._store.move(job, "stop", {"stop_reason": "cancelled"}, attempt=attempt,
                                           stop_reason="cancelled", if_lease_ended=True)  # fmt: skip
        elif job.lost + 1 >= MOST_LOST:
            moved = await self._bury(job, attempt)
        else:
            data = {"why": "the worker was lost", "worker": job.worker, "lost": job.lost + 1}
            moved = await self._store.move(job, "rescue", data, attempt=attempt, if_lease_ended=True, lost=True)
        if moved is not None:
            failpoint("after_rescue")
            self._stats.add("rescues_total")
            log.warning("rescued", job=job_id, worker=job.worker, lost=job.lost + 1)
        return moved is not None

    async def _bury(self, job: Job, attempt: Attempt) -> Moved | None:
        message = (
            f"the job lost its worker {MOST_LOST} times in a row and is set aside; retry it by hand once the cause "
            "is known"
        )
        data = {"stop_reason": "error", "error": {"code": "poison", "message": message}}
        return await self._store.move(
            job, "bury", data, attempt=attempt, stop_reason="error", if_lease_ended=True, lost=True
        )

    async def _due(self, job_id: str) -> None:
        job = await self._store.get(None, job_id)
        if job.status == "scheduled":
            await self._store.move(job, "due")
        elif job.status == "paused":
            await self._store.move(job, "resume", {"why": "the window of the budget that held it is over"})
        else:
            await self._store.undefer(job_id)
            await self._store.release(job_id)

    async def _expire(self, job_id: str) -> None:
        job = await self._store.get(None, job_id)
        if job.status != "running":
            error = {"code": "expired", "message": "the job was not started before its expires_at"}
            await self._store.move(job, "expire", {"stop_reason": "expired", "error": error}, stop_reason="expired")

    async def _end_children(self, job_id: str) -> None:
        await cancel_children(self._store, await self._store.get(None, job_id))

    async def _release(self, job_id: str) -> None:
        if await self._store.release(job_id):
            log.warning("a queued job had no ticket; pushed one", job=job_id)

    async def _quietly(self, work: Awaitable[object], job_id: str, token: str = "", queue: str = "") -> None:
        """One job's trouble must not keep the sweep from the next."""
        try:
            await work
        except (ConflictError, StaleAttemptError, NotFoundError):
            pass
        except DamagedRecordError as exc:
            log.error("record set aside: it cannot be read", job=job_id, why=str(exc))
            await self._store.tickets.set_aside(job_id, token, queue)
        except (ValueError, redis.ResponseError) as exc:
            log.error("a job cannot be moved on", job=job_id, why=str(exc))


def _behind(skipped: int, page: Sequence[str]) -> int:
    """How many the next sweep passes over: a full page may have stayed, for there are jobs that no sweep can move."""
    return skipped + MOST_OVERDUE if len(page) == MOST_OVERDUE else 0
