"""The job store without Redis: for tests of what acts on jobs, and for trying an agent's surroundings in one process.

`MemoryStore` does what `jobs.store.JobStore` does, on the same transition table; each method here is the plain-Python
reading of one Lua script. It lives in one event loop and keeps nothing.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from agent_core.errors import StaleAttemptError
from agent_core.types import Budget, Json
from jobs import stats
from jobs.approvals import Request
from jobs.errors import ConflictError, IdempotencyError, NotFoundError
from jobs.journal import FIRST, Line
from jobs.kill_switch import GLOBAL
from jobs.link import milliseconds
from jobs.money import NO_MONEY, Money
from jobs.moves import Attempt, Child, Hold, Idempotency, Moved, Submitted
from jobs.queue import CLAIM, FROM_THE_START, MOST_OVERDUE, Claim, Overdue, PassOver, queue_name, side_queue
from jobs.records import Job, JobSpec, new_id, record_fields
from jobs.status import ENDED, TRANSITIONS, Status, refusal
from jobs.store import IDEMPOTENCY_SECONDS, TO_THE_FRONT
from jobs.testing_approvals import MemoryApprovals
from jobs.testing_shelf import Clock, Record, Shelf


class MemoryTickets:
    """The twin of `jobs.queue.Tickets`, method by method.

    `suspended` is what `rq suspend` sets; `stopped` holds (job id, worker) for each worker told to stop a job.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.suspended = False
        self.stopped: list[tuple[str, str]] = []

    async def push(self, job: Job, *, front: bool = False, again: bool = False) -> int:
        shelf, name = self._shelf, queue_name(job.spec.pool, job.spec.priority)
        if not shelf.may_run(job.id):
            return 0
        places = (name, side_queue(name, job.spec))
        if again and any(job.id in shelf.queues.get(place, ()) for place in places):
            return 0
        if (withheld := shelf.switches.withhold(name, job, front=front)) is not None:
            return withheld
        tickets = shelf.queues.setdefault(name, [])
        tickets.insert(0 if front else len(tickets), job.id)
        return 1

    async def claim(
        self, queues: Sequence[str], versions: Iterable[str], *, most: int, lease: int, worker: str
    ) -> list[Claim]:
        known, claims = set(versions), list[Claim]()
        for queue in () if self.suspended or GLOBAL in self._shelf.switches.on else queues:
            tickets = self._shelf.queues.get(queue, [])
            for _ in range(len(tickets)):
                if len(claims) == most:
                    break
                job_id = tickets.pop(0)
                if self._shelf.may_run(job_id):
                    claims += self._run(job_id, queue, known, lease, worker)
        return claims

    def _run(self, job_id: str, queue: str, known: set[str], lease: int, worker: str) -> list[Claim]:
        """Makes the job an attempt, unless a switch stops it, or leaves it to a worker that has its agent's version."""
        shelf, record, job = self._shelf, self._shelf.records[job_id], self._shelf.job(job_id)
        if job is None or shelf.switches.withhold(queue, job) is not None:
            return []
        version = f"{record['agent']}@{record['agent_version']}"
        if version not in known:
            shelf.queues.setdefault(f"{queue.partition('@')[0]}@{version}", []).append(job_id)
            return []
        now, token = str(shelf.clock()), uuid.uuid4().hex
        record["attempt"] = str(int(record.get("attempt", 0)) + 1)
        record.setdefault("started_ms", now)
        record.update(status=CLAIM.target, token=token, worker=worker, since_ms=now, queue=queue, writes="0")
        shelf.queued.pop(job_id, None)
        shelf.append(job_id, CLAIM.event, {"worker": worker}, record["attempt"])
        shelf.leases[queue, f"{job_id}:{token}"] = shelf.lease_end(lease)
        return [Claim(job_id, token, queue, shelf.job(job_id))]

    async def beat(self, members: Sequence[tuple[str, str, str]], lease: int) -> list[int]:
        answers = []
        for job_id, token, queue in members:
            record, key = self._shelf.records.get(job_id, {}), (queue, f"{job_id}:{token}")
            held = key in self._shelf.leases and record.get("token") == token
            if held:
                self._shelf.leases[key] = self._shelf.lease_end(lease)
            answers.append(_asked(record) if held else -1)
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

    async def depths(self) -> dict[str, int]:
        return {name: len(tickets) for name, tickets in sorted(self._shelf.queues.items())}

    async def running(self) -> int:
        return len(self._shelf.leases)

    async def place(self, job: Job) -> int | None:
        tickets = self._shelf.queues.get(queue_name(job.spec.pool, job.spec.priority), [])
        return tickets.index(job.id) if job.id in tickets else None


class MemoryStore:
    """The twin of `jobs.store.JobStore`, method by method.

    `clock` gives ms; `shelf` is all that it holds; `endings` counts as `jobs.stats` does.
    """

    def __init__(self, clock: Clock = milliseconds) -> None:
        self.shelf = Shelf(clock)
        self.tickets = MemoryTickets(self.shelf)
        self.approvals = MemoryApprovals(clock, self.shelf.append)
        self.endings: Counter[str] = Counter()
        self._keys: dict[tuple[str, str], tuple[int, str, str]] = {}

    # ---- submit

    async def submit(
        self,
        tenant: str,
        spec: JobSpec,
        budget: Budget,
        *,
        idempotency: Idempotency | None = None,
        seed: Sequence[tuple[str, Json]] = (),
        child: Child | None = None,
        job_id: str | None = None,
    ) -> Submitted:
        given = child.id if child else job_id
        if given is not None and (made := self.shelf.job(given)) is not None:
            return Submitted(made.as_submitted(), replayed=True)
        if child is not None and self.shelf.records.get(spec.parent_id or "", {}).get("token") != child.token:
            raise StaleAttemptError(f"job {spec.parent_id} has been handed to another attempt")
        if idempotency is not None and (first := await self.earlier(tenant, idempotency)) is not None:
            return first
        shelf, job_id = self.shelf, given or new_id("job")
        shelf.switches.require_none(tenant, spec)
        now = shelf.clock()
        status: Status = "scheduled" if spec.run_at is not None else "queued"
        words = list(map(str, record_fields(job_id, tenant, spec, budget)))
        record = dict(zip(words[::2], words[1::2], strict=True), status=status, created_ms=str(now))
        shelf.records[job_id] = record
        forked = {"forked_from": spec.forked_from} if spec.forked_from else {}
        for type_, data in (("job.queued", {"status": status, **forked}), *seed):
            shelf.append(job_id, type_, data)
        if child is not None and spec.parent_id is not None:
            shelf.join_parent(spec.parent_id, job_id, {"job_id": job_id, "agent": spec.agent})
        if idempotency is not None:
            forget = now + IDEMPOTENCY_SECONDS * 1000
            self._keys[tenant, idempotency.digest] = (forget, idempotency.fingerprint, job_id)
        if spec.run_at:
            shelf.due[job_id] = spec.run_at
        if spec.expires_at:
            shelf.expiring[job_id] = spec.expires_at
        if status == "queued":
            self._enqueue(job_id, record)
        job = Job(job_id, tenant, spec, budget, status, now)
        await self.tickets.push(job)
        return Submitted(job)

    async def children(self, job_id: str) -> list[str]:
        return sorted(self.shelf.children.get(job_id, ()))

    async def earlier(self, tenant: str, idempotency: Idempotency) -> Submitted | None:
        forget, fingerprint, job_id = self._keys.get((tenant, idempotency.digest), (0, "", ""))
        if forget <= self.shelf.clock():
            return None
        if fingerprint != idempotency.fingerprint:
            raise IdempotencyError("this Idempotency-Key was used before with another body")
        return Submitted((await self.get(tenant, job_id)).as_submitted(), replayed=True)

    def _enqueue(self, job_id: str, record: Record) -> None:
        self.shelf.queued[job_id] = self.shelf.clock()
        if record["session_id"] and job_id not in self.shelf.line_of(record):
            self.shelf.line_of(record).append(job_id)

    async def get(self, tenant: str | None, job_id: str) -> Job:
        job = self.shelf.job(job_id)
        if job is None or (tenant is not None and job.tenant != tenant):
            raise NotFoundError(f"there is no job {job_id[:80]!r}", code="job_not_found")
        return job

    async def get_many(self, job_ids: Sequence[str]) -> list[Job | None]:
        return [self.shelf.job(job_id) for job_id in job_ids]

    async def lines(self, job_id: str, after: str = FIRST, limit: int | None = None) -> list[Line]:
        position = Line(after, "", 0, {}).position
        return [line for line in self.shelf.journals.get(job_id, []) if line.position > position][:limit]

    # ---- move

    async def move(
        self,
        job: Job,
        action: str,
        data: Json | None = None,
        *,
        attempt: Attempt | None = None,
        stop_reason: str | None = None,
        fields: Mapping[str, str | int] | None = None,
        due_ms: int = 0,
        if_lease_ended: bool = False,
        lost: bool = False,
        hold: Hold | None = None,
        for_children: bool = False,
        asks: Sequence[Request] = (),
    ) -> Moved | None:
        transition, shelf, record = TRANSITIONS[action], self.shelf, self.shelf.records.get(job.id)
        if record is None:
            raise NotFoundError(f"there is no job {job.id!r}", code="job_not_found")
        if attempt is not None and record.get("token") != attempt.token:
            raise StaleAttemptError(f"job {job.id} has been handed to another attempt")
        status = record["status"]
        if status not in transition.sources or (status in ENDED and status != job.status):
            raise refusal(job.id, status, action)
        lease = (attempt.queue if attempt else job.queue, f"{job.id}:{record.get('token', '')}")
        if if_lease_ended and shelf.leases.get(lease, -1) >= shelf.clock():
            return None
        self.approvals.withdraw(job.id, goes_on=transition.target == "queued")
        self._leave(job, record, lease, ends=transition.ends)
        written = {"status": transition.target, **(data or {})}
        self.approvals.ask(job, asks, record.get("attempt", 0))
        entry = shelf.append(job.id, transition.event, written, record.get("attempt", 0))
        record.update({name: str(value) for name, value in (fields or {}).items()}, status=transition.target)
        self._note(job.id, record, stop_reason, hold, lost=lost)
        open_children = shelf.children.get(job.id, set())
        record.pop("awaits_children", None)
        if for_children and open_children:
            record["awaits_children"] = "1"
        following = self._arrive(job.id, record, entry, 0 if for_children and not open_children else due_ms)
        if transition.ends and (parent := shelf.end(job, transition.target)):
            await self.undefer(parent)
            await self.release(parent)
        if transition.target == "queued":
            await self.tickets.push(job, front=action in TO_THE_FRONT, again=True)
        if following is not None:
            await self.release(following)
        if "cancel" in record and status == "running" and transition.target != "queued":
            with suppress(ConflictError):
                await self.move(job, "cancel", {"stop_reason": "cancelled"}, stop_reason="cancelled")
        return Moved(entry, following)

    def _note(self, job_id: str, record: Record, stop_reason: str | None, hold: Hold | None, *, lost: bool) -> None:
        """Writes down why the job comes to its new status."""
        if stop_reason:
            record["stop_reason"] = stop_reason
        if hold is not None:
            record["held_by"] = hold.budget
            self.shelf.held[job_id] = hold.until_ms
            if hold.until_ms is not None:
                self.shelf.due[job_id] = hold.until_ms
        if lost:
            record["lost"] = str(int(record.get("lost", 0)) + 1)

    def _leave(self, job: Job, record: Record, lease: tuple[str, str], *, ends: bool) -> None:
        """Takes down what stood for the status that the job had."""
        gone, job_id = ["stop_reason"], job.id
        if record["status"] == "running" or ends:
            failed, reached = self.shelf.accounts.settle_open(job_id, ends=ends)
            self._append_all(job_id, record, failed, reached)
        if record["status"] == "running":
            record["ran_ms"] = str(int(record.get("ran_ms", 0)) + self.shelf.clock() - int(record["since_ms"]))
            self.shelf.leases.pop(lease, None)
            gone += ["token", "worker", "since_ms"]
        elif record["status"] in ENDED:
            gone += ["ended_ms", "end_id", "lost"]
            self.shelf.go_on(job)
        elif record["status"] == "paused":
            gone += ["held_by"]
            self.shelf.held.pop(job_id, None)
        for name in gone:
            record.pop(name, None)
        self.shelf.queued.pop(job_id, None)
        self.shelf.due.pop(job_id, None)

    def _arrive(self, job_id: str, record: Record, entry: str, due_ms: int) -> str | None:
        """Puts up what stands for the new status; returns the next job of the session when this one has ended."""
        shelf, now = self.shelf, self.shelf.clock()
        if record["status"] == "queued":
            self._enqueue(job_id, record)
            if due_ms:
                shelf.due[job_id] = due_ms if due_ms > 0 else now - due_ms
        if record["status"] in (*ENDED, "paused"):
            record.pop("pause", None)
        if record["status"] not in ENDED:
            return None
        record.pop("cancel", None)
        record.update(ended_ms=str(now), end_id=entry)
        shelf.expiring.pop(job_id, None)
        self.endings[stats.ended_field(record["agent"], record["status"])] += 1
        line = shelf.line_of(record) if record["session_id"] else []
        if job_id in line:
            line.remove(job_id)
        return line[0] if line else None

    async def release(self, job_id: str) -> bool:
        job = self.shelf.job(job_id)
        return job is not None and bool(await self.tickets.push(job, again=True))

    async def undefer(self, job_id: str) -> None:
        self.shelf.due.pop(job_id, None)

    async def flag(self, job: Job, flag: str) -> str | None:
        record = self.shelf.records.get(job.id, {})
        if record.get("status") != "running":
            return None
        record[flag] = "1"
        return record["worker"]

    async def record(
        self,
        job_id: str,
        token: str,
        number: int,
        counters: Mapping[str, int],
        entries: Sequence[tuple[str, Json]],
        money: Money = NO_MONEY,
    ) -> int:
        record = self.shelf.records.get(job_id, {})
        if record.get("token") != token:
            raise StaleAttemptError(f"job {job_id} has been handed to another attempt")
        if number > int(record["writes"]):
            for call in money.reserve:
                self.shelf.accounts.reserve(job_id, call)
            for call in money.submit:
                self.shelf.accounts.submit(job_id, call)
            reached = [about for bill in money.settle for about in self.shelf.accounts.settle(job_id, bill)]
            record["writes"] = str(number)
            for name, increment in counters.items():
                record[name] = str(int(record.get(name, 0)) + increment)
            if any(type_ == "model.completed" for type_, _ in entries):
                record.pop("lost", None)
            self._append_all(job_id, record, entries, reached)
        return _asked(record)

    def _append_all(
        self, job_id: str, record: Record, entries: Sequence[tuple[str, Json]], reached: Sequence[Json]
    ) -> None:
        for type_, data in (*entries, *(("budget.reached", about) for about in reached)):
            self.shelf.append(job_id, type_, data, record.get("attempt", 0))


def _asked(record: Record) -> int:
    """What was asked of a running attempt: 0 nothing, 1 to cancel, 2 to pause."""
    return 1 if "cancel" in record else 2 if "pause" in record else 0


def _until(index: Mapping[str, int], ms: int) -> list[str]:
    """The ids of a sorted set up to a time, in its order."""
    return [job_id for when, job_id in sorted((when, job_id) for job_id, when in index.items()) if when <= ms]
