"""Pages of a tenant's jobs, of its approvals and schedules, of an endpoint's deliveries, the newest first.

A page ends at a place, (creation time, id), and the next one goes on below it; so jobs that come, end or change
between two pages are neither skipped nor repeated.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from jobs import cursors, keys
from jobs.approvals import Approval, Approvals, ApprovalStatus
from jobs.deliveries import Deliveries, Delivery
from jobs.deliveries import Status as DeliveryStatus
from jobs.link import RedisLink
from jobs.records import Job
from jobs.schedules import Row, Schedule, Schedules
from jobs.status import ENDED, Status
from jobs.store import JobStore
from jobs.webhooks import Endpoint

log = structlog.get_logger(__name__)

SCAN_CHUNK = 200
MOST_SCANNED = 10_000
"""Jobs looked at for one page; a page of a rare filter may therefore be short, or empty, and still have a cursor."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs to list; None lists all. Times are ms since the epoch, the later one excluded."""

    status: Status | None = None
    agent: str | None = None
    tag: str | None = None
    session_id: str | None = None
    user: str | None = None
    created_after: int | None = None
    created_before: int | None = None

    @property
    def by_record(self) -> bool:
        """Whether the index alone does not decide."""
        asked = (self.agent, self.tag, self.session_id, self.user)
        return any(value is not None for value in asked) or (self.status is not None and self.status not in ENDED)


class Place(NamedTuple):
    """Where a job stands in the order of creation, or an approval in that of the requests."""

    created_ms: int
    id: str


async def _cursor(link: RedisLink, index: str, place: Place) -> str:
    return await cursors.sign(link, index, f"{place.created_ms} {place.id}")


async def _start(link: RedisLink, index: str, after: str | None) -> Place | None:
    """The place of a cursor of that list. Raises InvalidError."""
    if not after:
        return None
    created_ms, _, found = (await cursors.read(link, index, after)).partition(" ")
    return Place(int(created_ms), found)


async def list_jobs(
    store: JobStore,
    tenant: str,
    filters: Filters,
    *,
    limit: int,
    after: str | None = None,
    chunk_size: int = SCAN_CHUNK,
    most_scanned: int = MOST_SCANNED,
) -> tuple[list[Job], str | None]:
    """Up to `limit` jobs below a cursor, and the cursor of the next page, None at the end. Raises InvalidError.

    The index is read in chunks of `chunk_size`, up to `most_scanned` jobs for one page.
    """
    link, index = store.link, keys.all_jobs(tenant)
    start = await _start(link, index, after)
    found: list[Place] = []
    scanned = 0
    last: Place | None = None
    async for chunk in _places(link, _index(tenant, filters), filters, start, chunk_size):
        for place, matches in zip(chunk, await _match(link, chunk, filters), strict=True):
            if matches and len(found) == limit:
                return await _jobs(store, found), await _cursor(link, index, found[-1])
            if matches:
                found.append(place)
            last = place
        scanned += len(chunk)
        if scanned >= most_scanned and last is not None:
            return await _jobs(store, found), await _cursor(link, index, last)
    return await _jobs(store, found), None


async def list_approvals(
    link: RedisLink,
    tenant: str,
    *,
    status: ApprovalStatus | None = None,
    job_id: str | None = None,
    limit: int,
    after: str | None = None,
    most_scanned: int = MOST_SCANNED,
) -> tuple[list[Approval], str | None]:
    """Up to `limit` approvals below a cursor, and the cursor of the next page, None at the end. Raises InvalidError."""
    index, approvals = keys.approvals(tenant), Approvals(link)
    start = await _start(link, index, after)
    found: list[Approval] = []
    scanned = 0
    async for chunk in _approvals(link, approvals, tenant, job_id, start, pending=status == "pending"):
        for approval in chunk:
            if status not in (None, approval.status) or approval.tenant != tenant:
                continue
            if len(found) == limit:
                return found, await _cursor(link, index, _place(found[-1]))
            found.append(approval)
        scanned += len(chunk)
        if scanned >= most_scanned:
            return found, await _cursor(link, index, _place(chunk[-1]))
    return found, None


async def list_deliveries(
    link: RedisLink,
    endpoint: Endpoint,
    *,
    status: DeliveryStatus | None = None,
    limit: int,
    after: str | None = None,
    most_scanned: int = MOST_SCANNED,
) -> tuple[list[Delivery], str | None]:
    """Up to `limit` deliveries of an endpoint below a cursor, and the cursor of the next page, None at the end.

    Raises InvalidError.
    """
    index = keys.deliveries(endpoint.owner)
    start, found, scanned = await _start(link, index, after), list[Delivery](), 0
    last: Place | None = None
    async for chunk in _places(link, index, Filters(), start, SCAN_CHUNK):
        for place, delivery in zip(chunk, await Deliveries(link).get_many([one.id for one in chunk]), strict=True):
            wanted = delivery is not None and status in (None, delivery.status)
            if wanted and len(found) == limit:
                return found, await _cursor(link, index, last) if last else None
            if wanted and delivery is not None:
                found.append(delivery)
                last = place
        scanned += len(chunk)
        if scanned >= most_scanned:
            return found, await _cursor(link, index, chunk[-1])
    return found, None


async def list_schedules(
    link: RedisLink, tenant: str, *, limit: int, after: str | None = None
) -> tuple[list[Schedule], str | None]:
    """Up to `limit` schedules below a cursor, and the cursor of the next page, None at the end. Raises InvalidError."""
    places, cursor = await _page(link, keys.schedules(tenant), limit, after)
    found = await asyncio.gather(*(Schedules(link).find(place.id) for place in places))
    return [schedule for schedule in found if schedule is not None], cursor


async def list_slots(
    link: RedisLink, schedule: Schedule, *, limit: int, after: str | None = None
) -> tuple[list[Row], str | None]:
    """Up to `limit` rows of a slot ledger below a cursor, and the cursor of the next page, None at the end.

    Raises InvalidError.
    """
    places, cursor = await _page(link, keys.slots(schedule.id, "index"), limit, after)
    found = await Schedules(link).rows(schedule.id, [place.id for place in places])
    return [row for row in found if row is not None], cursor


async def _page(link: RedisLink, index: str, limit: int, after: str | None) -> tuple[list[Place], str | None]:
    start, found = await _start(link, index, after), list[Place]()
    async for chunk in _places(link, index, Filters(), start, limit + 1):
        found += chunk
        if len(found) > limit:
            return found[:limit], await _cursor(link, index, found[limit - 1])
    return found, None


async def _approvals(
    link: RedisLink, approvals: Approvals, tenant: str, job_id: str | None, start: Place | None, *, pending: bool
) -> AsyncIterator[list[Approval]]:
    """Approvals below a place, the newest first, in chunks; those of a job in one."""
    if job_id is not None:
        of_job = [one for one in await approvals.get_many(await approvals.of_job(job_id)) if one is not None]
        yield [one for one in sorted(of_job, key=_place, reverse=True) if start is None or _place(one) < start]
        return
    async for chunk in _places(link, keys.approvals(tenant, pending=pending), Filters(), start, SCAN_CHUNK):
        if there := [one for one in await approvals.get_many([place.id for place in chunk]) if one is not None]:
            yield there


def _place(approval: Approval) -> Place:
    return Place(approval.requested_ms, approval.id)


def _index(tenant: str, filters: Filters) -> str:
    if filters.status is None:
        return keys.all_jobs(tenant)
    return keys.ended_jobs(tenant, filters.status) if filters.status in ENDED else keys.open_jobs(tenant)


async def _places(
    link: RedisLink, index: str, filters: Filters, start: Place | None, count: int
) -> AsyncIterator[list[Place]]:
    """The places of an index below `start`, in chunks. Jobs of one ms stand in the order of their ids."""
    lowest = "-inf" if filters.created_after is None else str(filters.created_after)
    highest = "+inf" if filters.created_before is None else f"({filters.created_before}"
    below = start
    while True:
        top = highest
        if below is not None and (filters.created_before is None or below.created_ms < filters.created_before):
            top = str(below.created_ms)
        answer = await link.command("ZREVRANGEBYSCORE", index, top, lowest, "WITHSCORES", "LIMIT", 0, count)
        found = [Place(int(score), member.decode()) for member, score in answer]
        chunk = [place for place in found if below is None or place < below]
        if chunk:
            below = chunk[-1]
            yield chunk
        elif len(found) < count:
            return
        else:
            count *= 2  # more jobs of one ms than a chunk holds


async def _match(link: RedisLink, places: list[Place], filters: Filters) -> list[bool]:
    if not filters.by_record:
        return [True] * len(places)
    records = await asyncio.gather(
        *(link.command("HMGET", keys.job(place.id), "status", "agent", "session_id", "spec") for place in places)
    )
    return [_fits(record, filters) for record in records]


def _fits(record: list[bytes | None], filters: Filters) -> bool:
    status, agent, session_id, spec = ((field or b"").decode(errors="replace") for field in record)
    wanted = ((filters.status, status), (filters.agent, agent), (filters.session_id, session_id))
    if any(value is not None and value != held for value, held in wanted):
        return False
    if filters.tag is None and filters.user is None:
        return True
    try:
        asked = json.loads(spec)
    except ValueError:
        return False
    return (filters.tag is None or filters.tag in asked["tags"]) and filters.user in (None, asked["user"])


async def _jobs(store: JobStore, places: list[Place]) -> list[Job]:
    """The jobs of some places; one whose record is gone or damaged is left out."""
    results = await asyncio.gather(*(store.get_many([place.id]) for place in places), return_exceptions=True)
    jobs: list[Job] = []
    for place, result in zip(places, results, strict=True):
        if isinstance(result, ValueError):
            log.error("damaged record", job_id=place.id, error=str(result))
        elif isinstance(result, BaseException):
            raise result
        elif result[0] is not None:
            jobs.append(result[0])
    return jobs
