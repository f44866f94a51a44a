"""Holding an answer until a job ends or needs someone."""

from __future__ import annotations

import time

from api.live import LOOK_AGAIN_SECONDS, Hub
from jobs.records import Job
from jobs.store import JobStore

SETTLED = frozenset({"requires_action", "paused"})
"""Statuses, besides the ended ones, in which a job does nothing until someone acts."""


async def until_settled(store: JobStore, hub: Hub, tenant: str, job_id: str, seconds: float) -> Job:
    """The job when it ends or needs someone, or as it is after `seconds`. Raises NotFoundError."""
    job = await store.get(tenant, job_id)
    if seconds <= 0 or _settled(job):
        return job
    deadline = time.monotonic() + seconds
    async with hub.watch(job_id) as watch:
        while True:
            job = await store.get(tenant, job_id)
            left = deadline - time.monotonic()
            if _settled(job) or left <= 0 or watch.closed:
                return job
            await watch.wait(min(left, LOOK_AGAIN_SECONDS))


def _settled(job: Job) -> bool:
    return job.ended or job.status in SETTLED
