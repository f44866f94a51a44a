"""Forgetting a user: memories, the sessions they spoke in, what was to be learnt of them, and if asked their jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from agent_core.types import Json
from api.deps import Services
from jobs import actions
from jobs.errors import ConflictError, NotFoundError
from jobs.listing import Filters, list_jobs
from jobs.records import Job
from jobs.retention import Retention
from jobs.status import ENDED
from memory.errors import NoMemoryError
from memory.session import SessionMemory
from memory.setup import EXTRACTION

JOBS_AT_ONCE = 200


@dataclass(slots=True)
class Forgotten:
    """How many of each were deleted. `unfinished` jobs of those to go were left, because they have not ended."""

    forgotten: int = 0
    sessions: int = 0
    jobs: int = 0
    unfinished: int = 0

    def to_json(self) -> Json:
        """For the answer."""
        return asdict(self)


async def forget_user(services: Services, tenant: str, user: str, *, with_jobs: bool) -> Forgotten:
    """Deletes what is remembered of a user, and with `with_jobs` their ended jobs. It may be done again at any time.

    First ends the jobs that would learn more of them. Raises the errors of memory, and UnavailableError.
    """
    agent, found = None if with_jobs else EXTRACTION, Forgotten()
    async for job in _jobs(services, tenant, Filters(user=user, agent=EXTRACTION)):
        if job.status not in ENDED:
            with suppress(ConflictError, NotFoundError):
                await actions.cancel(services.store, tenant, job.id)
    found.forgotten = await _forget_memories(services, tenant, user)
    found.sessions = await SessionMemory(services.link).forget_user(tenant, user)
    retention = Retention(services.link, services.files, keep_ms=0)
    async for job in _jobs(services, tenant, Filters(user=user, agent=agent)):
        if job.status in ENDED:
            found.jobs += await retention.prune_job(job.id)
        else:
            found.unfinished += 1
    return found


async def _forget_memories(services: Services, tenant: str, user: str) -> int:
    try:
        memory = await services.memory.get()
    except NoMemoryError:
        return 0
    from memory.scope import Scope  # imports what memory has imported by now

    return await memory.forget_user(Scope(tenant, user))


async def _jobs(services: Services, tenant: str, filters: Filters) -> AsyncIterator[Job]:
    cursor = None
    while True:
        found, cursor = await list_jobs(services.store, tenant, filters, limit=JOBS_AT_ONCE, after=cursor)
        for job in found:
            yield job
        if cursor is None:
            return
