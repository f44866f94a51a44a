"""The twin of the queue in memory: `jobs.queue.Tickets` in plain Python."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

from jobs.kill_switch import GLOBAL
from jobs.lanes import home, lane_of, queue_name, scopes_of, side_queue
from jobs.queue import CLAIM, FROM_THE_START, MOST_OVERDUE, Claim, Overdue, PassOver
from jobs.records import Job
from jobs.testing_shelf import Shelf, asked


class MemoryTickets:
    """The twin of `jobs.queue.Tickets`, method by method.

    `suspended` is what `rq suspend` sets; `stopped` holds (job id, worker) for each worker told to stop a job.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.suspended = False
        self.stopped: list[tuple[str, str]] = []

    async def push(self, job: Job, *, front: bool = False, again: bool = False) -> int:
        shelf, lane = self._shelf, home(job.tenant, job.spec)
        if not shelf.may_run(job.id):
            return 0
        if again and any(job.id in tickets for tickets in self._places(job)):
            return 0
        if (withheld := shelf.switches.withhold(lane, job, front=front)) is not None:
            return withheld
        shelf.lanes.push(lane, job.id, front=front)
        return 1

    def _places(self, job: Job) -> list[list[str]]:
        """The lists in which a ticket of the job may stand; see `jobs.lanes.places`."""
        queue, lane = queue_name(job.spec.pool, job.spec.priority), home(job.tenant, job.spec)
        lanes, queues = (lane, side_queue(lane, job.spec)), (queue, side_queue(queue, job.spec))
        held = [self._shelf.lanes.tickets[name, scope] for name in lanes for scope in scopes_of(job.spec)]
        return [*(self._shelf.queues.get(name, []) for name in (*lanes, *queues)), *held]

    async def claim(
        self, queues: Sequence[str], versions: Iterable[str], *, most: int, lease: int, worker: str
    ) -> list[Claim]:
        known, claims, lanes = set(versions), list[Claim](), self._shelf.lanes
        for queue in () if self.suspended or GLOBAL in self._shelf.switches.on else queues:
            self._sort_out(queue)
            done = 0
            while len(claims) < most and done < len(lanes.order(queue)):
                lane = lanes.order(queue)[done]
                tenant = lane.partition("@")[0].partition("~")[2]
                if lanes.is_full(tenant):
                    lanes.close(tenant, lane)
                    continue
                served = self._serve(lane, known, lease, worker)
                claims += served
                lanes.leave_or_stay(lane, served=bool(served))
                done += not served and lane in lanes.rotation[queue]
        return claims

    def _sort_out(self, queue: str) -> None:
        """Gives tickets that stand in the queue itself to the lanes of their tenants."""
        tickets = self._shelf.queues.get(queue, [])
        while tickets:
            job = self._shelf.job(tickets.pop(0))
            if job is not None:
                self._shelf.lanes.push(lane_of(queue, job.tenant), job.id)

    def _serve(self, lane: str, known: set[str], lease: int, worker: str) -> list[Claim]:
        """Gives a lane its turn: what limits held goes first."""
        lanes = self._shelf.lanes
        for scope in lanes.ready(lane):
            tickets, outcome = lanes.tickets[lane, scope], None
            while tickets and outcome is None:
                outcome = self._take(tickets.pop(0), lane, known, lease, worker, scope)
            if not tickets:
                lanes.held[lane].pop(scope)
            if isinstance(outcome, Claim):
                return [outcome]
        tickets = self._shelf.queues[lane]
        for _ in range(len(tickets)):
            outcome = self._take(tickets.pop(0), lane, known, lease, worker)
            if isinstance(outcome, Claim):
                return [outcome]
        return []

    def _take(
        self, job_id: str, lane: str, known: set[str], lease: int, worker: str, scope: str | None = None
    ) -> Claim | str | None:
        """Makes the job an attempt, or puts its ticket where it belongs; the scope that holds it, if one does."""
        shelf, job = self._shelf, self._shelf.job(job_id)
        if job is None or not shelf.may_run(job_id) or shelf.switches.withhold(lane, job) is not None:
            return None
        version = f"{job.spec.agent}@{job.spec.agent_version}"
        if version not in known:
            shelf.lanes.push(side_queue(lane.partition("@")[0], job.spec), job_id)
            return None
        holder = shelf.lanes.held_by(job)
        if holder is not None:
            shelf.lanes.hold(job.tenant, holder, lane, job_id, front=holder == scope)
            return holder
        now, token, record = str(shelf.clock()), uuid.uuid4().hex, shelf.records[job_id]
        record["attempt"] = str(int(record.get("attempt", 0)) + 1)
        record.setdefault("started_ms", now)
        record.update(status=CLAIM.target, token=token, worker=worker, since_ms=now, queue=lane, writes="0")
        shelf.queued.pop(job_id, None)
        shelf.append(job_id, CLAIM.event, {"worker": worker}, record["attempt"])
        shelf.leases[lane, f"{job_id}:{token}"] = shelf.lease_end(lease)
        shelf.lanes.occupy(job)
        return Claim(job_id, token, lane, shelf.job(job_id))

    async def beat(self, members: Sequence[tuple[str, str, str]], lease: int) -> list[int]:
        answers = []
        for job_id, token, queue in members:
            record, key = self._shelf.records.get(job_id, {}), (queue, f"{job_id}:{token}")
            held = key in self._shelf.leases and record.get("token") == token
            if held:
                self._shelf.leases[key] = self._shelf.lease_end(lease)
            answers.append(asked(record) if held else -1)
        return answers

    async def overdue(
        self, *, most: int = MOST_OVERDUE, unticketed_ms: int = 10_000, skip: PassOver = FROM_THE_START
    ) -> Overdue:
        shelf, now = self._shelf, self._shelf.clock()
        due = _until(shelf.due, now)[skip.due :][:most]
        expired = _until(shelf.expiring, now)[skip.expired :][:most]
        unticketed = _until(shelf.queued, now - unticketed_ms)[skip.unticketed :][:most]
        ended = [(*member.split(":"), queue) for (queue, member), end in shelf.leases.items() if end < now]
        lost = [(job_id, token, queue) for job_id, token, queue in ended[:most]]
        return Overdue(due, expired, unticketed, lost, sorted(shelf.orphans)[:most])

    async def set_aside(self, job_id: str, token: str = "", queue: str = "") -> None:
        self._shelf.dead_letters.add(job_id)
        for index in (self._shelf.queued, self._shelf.due, self._shelf.expiring):
            index.pop(job_id, None)
        self._shelf.leases.pop((queue, f"{job_id}:{token}"), None)

    async def stop(self, job_id: str, worker: str) -> None:
        """Notes that the worker was told to stop the job."""
        self.stopped.append((job_id, worker))

    async def sweep_limits(self) -> int:
        def runs(job_id: str) -> bool:
            record = self._shelf.records.get(job_id, {})
            return (record.get("queue", ""), f"{job_id}:{record.get('token')}") in self._shelf.leases

        def key_limit(job_id: str) -> int | None:
            job = self._shelf.job(job_id)
            return None if job is None or job.spec.concurrency is None else int(job.spec.concurrency["limit"])

        return self._shelf.lanes.sweep(runs, key_limit)

    async def depths(self) -> dict[str, int]:
        return self._shelf.lanes.depths()

    async def running(self) -> int:
        return len(self._shelf.leases)

    async def place(self, job: Job) -> int | None:
        return next((tickets.index(job.id) for tickets in self._places(job) if job.id in tickets), None)


def _until(index: Mapping[str, int], ms: int) -> list[str]:
    """The ids of a sorted set up to a time, in its order."""
    return [job_id for when, job_id in sorted((when, job_id) for job_id, when in index.items()) if when <= ms]
