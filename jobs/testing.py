"""The job store without Redis: for tests of what acts on jobs, and for trying an agent's surroundings in one process.

`MemoryStore` does what `jobs.store.JobStore` does, on the same transition table; each method here is the plain-Python
reading of one Lua script. It lives in one event loop and keeps nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from agent_core.errors import StaleAttemptError
from agent_core.types import Budget, Json
from jobs import stats
from jobs.approvals import Request
from jobs.errors import ConflictError, IdempotencyError, NotFoundError
from jobs.journal import FIRST, Line
from jobs.link import milliseconds
from jobs.money import NO_MONEY, Money
from jobs.moves import Attempt, Child, Hold, Idempotency, Moved, Submitted
from jobs.records import Job, JobSpec, new_id, record_fields
from jobs.status import ENDED, TRANSITIONS, Status, refusal
from jobs.store import IDEMPOTENCY_SECONDS, TO_THE_FRONT
from jobs.testing_approvals import MemoryApprovals
from jobs.testing_shelf import Clock, Record, Shelf, asked
from jobs.testing_tickets import MemoryTickets


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
            self.shelf.lanes.vacate(job, record["queue"])
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
        return asked(record)

    def _append_all(
        self, job_id: str, record: Record, entries: Sequence[tuple[str, Json]], reached: Sequence[Json]
    ) -> None:
        for type_, data in (*entries, *(("budget.reached", about) for about in reached)):
            self.shelf.append(job_id, type_, data, record.get("attempt", 0))
