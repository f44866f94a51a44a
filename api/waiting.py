"""Holding an answer until a job ends or needs someone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from api.live import LOOK_AGAIN_SECONDS, Hub
from jobs.records import Job
from jobs.store import JobStore

SETTLED = frozenset({"requires_action", "paused"})
"""Statuses, besides the ended ones, in which a job does nothing until someone acts."""


async def until_settled(store: JobStore, hub: Hub, tenant: str, job_id: str, seconds: float) -> Job:
    """The job when it ends or needs someone, or as it is after `seconds`. Raises NotFoundError."""
    job = await store.get(tenant, job_id)
    if seconds <= 0 or settled(job):
        return job
    deadline = time.monotonic() + seconds
    async with hub.watch(job_id) as watch:
        while True:
            job = await store.get(tenant, job_id)
            left = deadline - time.monotonic()
            if settled(job) or left <= 0 or watch.closed:
                return job
            await watch.wait(min(left, LOOK_AGAIN_SECONDS))


async def changes(store: JobStore, hub: Hub, job: Job) -> AsyncIterator[Job]:
    """The job each time that it is in another status, until it has ended or needs someone, or the server stops.

    A status that it has for an instant alone may be left out. Raises NotFoundError.
    """
    seen = job
    async with hub.watch(job.id) as watch:
        while not (seen.ended or watch.closed):
            now = await store.get(job.tenant, job.id)
            if (now.status, now.attempts) != (seen.status, seen.attempts):
                seen = now
                yield now
                if settled(now):
                    return
            await watch.wait(LOOK_AGAIN_SECONDS)


def settled(job: Job) -> bool:
    """Whether it does nothing until someone acts, or nothing any more."""
    return job.ended or job.status in SETTLED
