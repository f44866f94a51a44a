"""The queue is RQ's: tickets in its lists, executions in its registries. A ticket carries a job's id and nothing else.

This is the only module outside `worker/` that knows RQ. What a ticket means, the job record says: a ticket that is lost
is pushed again, and one that comes twice finds its job no longer queued.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.utils import utcformat

from jobs import keys, lanes, outbox, queue_keys
from jobs.link import Arg, RedisLink, milliseconds
from jobs.records import PRIORITIES, RECORD_VERSION, Job, JobSpec, parse_record
from jobs.scripts import script
from jobs.status import TRANSITIONS

TASK = "worker.tasks.run_job"
"""The one function that a ticket names. No worker of ours looks it up; a stock RQ worker that does is told why not."""
LEASE_MARGIN = 366 * 24 * 3600
"""Seconds that RQ's own registries see a lease end later than it does. Its clean-up (`rq info` runs it) takes what it
believes abandoned off the registry for good; however long no worker of ours was up, the reaper must find it there.
"""
MOST_LOOKS = 1000
"""Tickets that one claim looks at: it must not hold Redis up however many of them may not run."""
MOST_OVERDUE = 200
"""Jobs of each kind that one sweep looks at."""
PREFIXES = json.dumps(
    [
        keys.JOB_PREFIX,
        keys.JOURNAL_PREFIX,
        keys.CHANNEL_PREFIX,
        queue_keys.JOB_PREFIX,
        queue_keys.EXECUTION_PREFIX,
        queue_keys.EXECUTIONS_PREFIX,
        keys.session_jobs("{tenant}", "{session}"),
        keys.STOPPED_PREFIX,
    ]
)
CLAIM = TRANSITIONS["claim"]
CLAIM_SOURCES = json.dumps(dict.fromkeys(sorted(CLAIM.sources), True))


def queue_names(pools: Iterable[str]) -> list[str]:
    """The queues of some pools in the order in which they are served: every high one before every default one."""
    return [lanes.queue_name(pool, priority) for priority in PRIORITIES for pool in pools]


def serves(versions: Container[str], side: str) -> bool:
    """Whether a worker that has some "agent@version" takes from a side queue.

    A queue of records that an older worker could not read has their version behind the agent's.
    """
    _, agent, version, *newest = side.split("@")
    return f"{agent}@{version}" in versions and all(int(record) <= RECORD_VERSION for record in newest)


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that has become this worker's attempt; None when its record could not be read, for the reason `damaged`.

    `queue` is the lane that its ticket was in.
    """

    job_id: str
    token: str
    queue: str
    job: Job | None
    damaged: str | None = None

    @property
    def member(self) -> str:
        return f"{self.job_id}:{self.token}"


@dataclass(frozen=True, slots=True)
class Overdue:
    """What a sweep found, by job id; `lost` are (job id, token, queue) of leases that have ended, `orphans` jobs that
    have ended before all of their children have.
    """

    due: list[str]
    expired: list[str]
    unticketed: list[str]
    lost: list[tuple[str, str, str]]
    orphans: list[str]


class PassOver(NamedTuple):
    """How many of each kind a sweep does not look at, the oldest ones: those that the sweeps before it looked at.

    What a sweep can do nothing about stays, and a page full of it must not hide what is behind it.
    """

    due: int = 0
    expired: int = 0
    unticketed: int = 0


FROM_THE_START = PassOver()


class Tickets:
    """Pushing, claiming and leasing."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def push(self, job: Job, *, front: bool = False, again: bool = False) -> asyncio.Future[int]:
        """Puts a ticket of a queued job into its lane; 1 when it did. Sent in the order of the calls.

        `again` looks for an earlier ticket first, which takes time in proportion to the queue.
        """
        return self.push_for(job.id, job.tenant, job.spec, front=front, again=again)

    def push_for(
        self, job_id: str, tenant: str, spec: JobSpec, *, front: bool = False, again: bool = False
    ) -> asyncio.Future[int]:
        """See `push`."""
        lane = lanes.home(tenant, spec)
        ticket_keys = [
            keys.job(job_id),
            queue_keys.queue(lane),
            queue_keys.job(job_id),
            keys.session_jobs(tenant, spec.session_id or ""),
            keys.DUE,
            keys.KILL_SWITCH,
            keys.DEAD_LETTERS,
            *(lanes.places(tenant, spec) if again else ()),
        ]
        call = json.dumps([TASK, None, [job_id], {}])
        place = "front" if front else "back"
        args: list[Arg] = [job_id, lane, _now(), call, place, keys.STOPPED_PREFIX, lanes.NAMES]
        return self._link.script(script("push_ticket"), ticket_keys, args)

    async def claim(
        self, queues: Sequence[str], versions: Iterable[str], *, most: int, lease: int, worker: str
    ) -> list[Claim]:
        """Takes up to `most` jobs off the queues, in their order, as attempts of this worker. Of one queue the tenant
        comes first of whose jobs from it the fewest run.

        `versions` are the "agent@version" that the worker can run; `lease` is in seconds. Raises UnavailableError;
        what was claimed without our hearing of it comes back when its lease ends.
        """
        tokens = [uuid.uuid4().hex for _ in range(most)]
        args: list[Arg] = [
            most,
            lease,
            LEASE_MARGIN,
            worker,
            _now(),
            PREFIXES,
            json.dumps(dict.fromkeys(versions, True)),
            json.dumps(tokens),
            CLAIM_SOURCES,
            CLAIM.target,
            CLAIM.event,
            RECORD_VERSION,
            outbox.NAMES,
            lanes.NAMES,
            MOST_LOOKS,
            *queues,
        ]
        claim_keys = [queue_keys.SUSPENDED, keys.QUEUED, keys.DUE, keys.KILL_SWITCH]
        answer = await self._link.script(script("claim"), claim_keys, args, patient=False)
        return [_claim(*item) for item in answer]

    async def wait(self, pools: Sequence[str], seconds: int) -> None:
        """Returns when a ticket may have come for one of the pools, at the latest after `seconds`."""
        await self._link.command("BLPOP", *map(keys.wake, pools), seconds)

    async def beat(self, members: Sequence[tuple[str, str, str]], lease: int) -> list[int]:
        """Renews the leases of (job id, token, queue); for each -1 lost, 0 renewed, 1 cancel asked, 2 pause asked."""
        beat_keys = [
            key
            for job_id, token, queue in members
            for key in (keys.job(job_id), queue_keys.wip(queue), queue_keys.execution(job_id, token))
        ]
        args: list[Arg] = [lease, LEASE_MARGIN, *(f"{job_id}:{token}" for job_id, token, _ in members)]
        answer = await self._link.script(script("beat"), beat_keys, args, patient=False)
        return [int(n) for n in answer]

    async def overdue(
        self, *, most: int = MOST_OVERDUE, unticketed_ms: int = 10_000, skip: PassOver = FROM_THE_START
    ) -> Overdue:
        """What is due, expired, queued for long, held by a lease that has ended, or has left children behind; at most
        `most` of each.
        """
        sweep_keys = [keys.DUE, keys.EXPIRING, keys.QUEUED, queue_keys.QUEUES, keys.ORPHANS]
        prefixes = (queue_keys.WIP_PREFIX, queue_keys.QUEUE_PREFIX)
        args: list[Arg] = [LEASE_MARGIN, most, unticketed_ms, *prefixes, *skip, queue_keys.HELD_BACK_PREFIX]
        found = await self._link.script(script("overdue"), sweep_keys, args, patient=False)
        due, expired, unticketed, lost, orphans = found
        held = [(*member.decode().split(":", 1), queue.decode()) for member, queue in lost]
        return Overdue(_texts(due), _texts(expired), _texts(unticketed), held, _texts(orphans))

    async def sweep_limits(self) -> int:
        """Lets jobs go on that a limit of running jobs holds back though it has room: it was raised or lifted, or a
        slot was not given back. Returns how many limits had room.
        """
        args: list[Arg] = [lanes.NAMES, MOST_OVERDUE, keys.JOB_PREFIX]
        return int(await self._link.script(script("sweep_limits"), [queue_keys.WAITS], args, patient=False))

    async def set_aside(self, job_id: str, token: str = "", queue: str = "") -> None:
        """Keeps a job whose record cannot be read for a person, out of the way of all others.

        It is in no list of the sweeps any more, its attempt has no lease, and its session goes on without it.
        """
        indexes = (keys.QUEUED, keys.DUE, keys.EXPIRING)
        await asyncio.gather(
            self._link.command("ZADD", keys.DEAD_LETTERS, "NX", milliseconds(), job_id),
            *(self._link.command("ZREM", index, job_id) for index in indexes),
            self._link.command("ZREM", queue_keys.wip(queue), f"{job_id}:{token}"),
        )

    async def side_queues(self) -> list[str]:
        """Queues of jobs whose agent version some worker could not run."""
        return [name for name in await self.names() if "@" in name and "~" not in name]

    async def names(self) -> list[str]:
        """Every queue there ever was a ticket in, and every lane that is not empty."""
        found = await self._link.command("SMEMBERS", queue_keys.QUEUES)
        return sorted(key.decode().removeprefix(queue_keys.QUEUE_PREFIX) for key in found)

    async def stop(self, job_id: str, worker: str) -> None:
        """Tells a worker, by RQ's own command, to stop a job at once."""
        payload = json.dumps({"command": "stop-job", "job_id": job_id})
        await self._link.command("PUBLISH", PUBSUB_CHANNEL_TEMPLATE % worker, payload)

    async def depths(self) -> dict[str, int]:
        """Tickets of each queue, with those that limits hold back."""
        depths = Counter[str]()
        for queue, tickets, _ in await self._depths():
            depths[queue.decode()] += tickets
        return dict(sorted(depths.items()))

    async def running(self) -> int:
        """Jobs that some worker holds, over the whole fleet."""
        return sum(running for _, _, running in await self._depths())

    async def _depths(self) -> list[tuple[bytes, int, int]]:
        found: list[tuple[bytes, int, int]] = await self._link.script(
            script("depths"), [queue_keys.QUEUES], [lanes.NAMES]
        )
        return found

    async def place(self, job: Job) -> int | None:
        """How many tickets of its tenant stand before the job's in its queue; None when it has none there."""
        found = (self._link.command("LPOS", key, job.id) for key in lanes.places(job.tenant, job.spec))
        return next((int(place) for place in await asyncio.gather(*found) if place is not None), None)


def _claim(job_id: bytes, token: bytes, queue: bytes, flat: list[bytes]) -> Claim:
    ids = (job_id.decode(), token.decode(), queue.decode())
    try:
        return Claim(*ids, parse_record(dict(zip(flat[::2], flat[1::2], strict=True))))
    except ValueError as exc:
        return Claim(*ids, None, str(exc))


def _texts(items: Sequence[bytes]) -> list[str]:
    return [item.decode() for item in items]


def _now() -> str:
    return str(utcformat(datetime.now(UTC)))
