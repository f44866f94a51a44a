"""The job store: every read and every move of a job, each move one Lua script.

`jobs.testing.MemoryStore` is its twin in memory; one conformance suite holds both.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import redis

from agent_core.errors import BudgetError, KilledError, StaleAttemptError
from agent_core.types import Budget, Json
from jobs import approvals, keys, lanes, outbox, queue_keys, stats
from jobs.blobs import pack, resolve
from jobs.errors import ConflictError, IdempotencyError, NotFoundError, UnavailableError
from jobs.journal import FIRST, Line, dump, parse_line
from jobs.kill_switch import Switch, switches_of
from jobs.link import RedisLink
from jobs.money import NAMES, NO_MONEY, Money, refusal_from
from jobs.moves import Attempt, Child, Hold, Idempotency, Moved, Submitted
from jobs.queue import LEASE_MARGIN, Tickets
from jobs.records import DamagedRecordError, Job, JobSpec, new_id, parse_record, record_fields
from jobs.scripts import script
from jobs.status import ENDED, TRANSITIONS, Status, refusal

IDEMPOTENCY_SECONDS = 24 * 3600
REPLICA_MS = 1000
TO_THE_FRONT = frozenset({"hand_back", "rescue"})
"""Moves after which a job is the next one of its queue: it has waited its turn before."""
ENDED_JSON = json.dumps(dict.fromkeys(sorted(ENDED), True))


class JobStore:
    """Jobs in Redis. Raises UnavailableError when Redis is away, from every method.

    A submission returns once `replicas` replicas have it too; 0 asks none.
    """

    def __init__(self, link: RedisLink, replicas: int = 0) -> None:
        self.link = link
        self._replicas = replicas
        self.tickets = Tickets(link)
        self.approvals = approvals.Approvals(link)

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
        """Writes the job and pushes its ticket. Returns only after Redis has both.

        `seed` are journal entries that a fork starts with. A `child` is noted in its parent's journal. When there is
        a job `job_id` already, it is the answer. Raises IdempotencyError when the key was used with another body,
        StoppedError when a kill switch is on, StaleAttemptError when the attempt that makes a child does not own the
        parent any more.
        """
        once = child.id if child else job_id
        job_id = once or new_id("job")
        parent = spec.parent_id or job_id
        status: Status = "scheduled" if spec.run_at is not None else "queued"
        fields = record_fields(job_id, tenant, spec, budget)
        packed = pack(data for _, data in seed)
        lines = [word for (type_, _), text in zip(seed, packed.texts, strict=True) for word in (type_, 0, text)]
        first = dump({"status": status, **({"forked_from": spec.forked_from} if spec.forked_from else {})})
        written = self.link.script(
            script("submit"),
            [
                keys.job(job_id),
                keys.journal(job_id),
                keys.idempotency(tenant, idempotency.digest if idempotency else ""),
                keys.open_jobs(tenant),
                keys.QUEUED,
                keys.DUE,
                keys.EXPIRING,
                keys.session_jobs(tenant, spec.session_id or ""),
                keys.all_jobs(tenant),
                keys.job_blobs(job_id),
                keys.FILES,
                keys.KILL_SWITCH,
                keys.job(parent),
                keys.journal(parent),
                keys.children(parent),
                *map(keys.file, spec.files),
                *packed.blobs,
            ],
            [
                job_id,
                status,
                idempotency.fingerprint if idempotency else "",
                IDEMPOTENCY_SECONDS,
                spec.run_at or 0,
                spec.expires_at or 0,
                int(bool(spec.session_id) and status == "queued"),
                first,
                json.dumps(spec.files),
                json.dumps(switches_of(tenant, spec)),
                dump({"job_id": job_id, "agent": spec.agent}) if child else "",
                keys.channel(parent),
                child.token if child else "",
                outbox.NAMES,
                len(fields) // 2,
                *fields,
                *lines,
                *packed.blobs.values(),
            ],
            patient=False,
        )
        pushed = self.tickets.push_for(job_id, tenant, spec, again=once is not None)
        known_tenant = self.link.command("SADD", keys.TENANTS, tenant)
        (verdict, known, *more), *_ = await asyncio.gather(written, pushed, known_tenant, self._replicated())
        if verdict == b"created":
            return Submitted(Job(job_id, tenant, spec, budget, status, int(more[0])))
        if verdict == b"stale":
            raise StaleAttemptError(f"job {parent} has been handed to another attempt")
        if verdict == b"killed":
            raise Switch.parse(known, more[0]).refusal()
        return await self._replayed(tenant, known, same=verdict == b"replayed")

    async def children(self, job_id: str) -> list[str]:
        """The ids of a job's children that have not ended."""
        return sorted(child.decode() for child in await self.link.command("SMEMBERS", keys.children(job_id)))

    async def _replicated(self) -> None:
        """Returns once enough replicas have all that was sent before. Raises UnavailableError when they have not."""
        if self._replicas:
            reached = await self.link.command("WAIT", self._replicas, REPLICA_MS)
            if reached < self._replicas:
                raise UnavailableError(
                    f"the job reached {reached} of {self._replicas} replicas; it may run all the same: send it again "
                    "with the same Idempotency-Key",
                    code="not_replicated",
                )

    async def earlier(self, tenant: str, idempotency: Idempotency) -> Submitted | None:
        """The submission that used an idempotency key before. Raises IdempotencyError when its body was another."""
        key = keys.idempotency(tenant, idempotency.digest)
        known, fingerprint = await self.link.command("HMGET", key, "job_id", "fingerprint")
        if fingerprint is None:
            return None
        return await self._replayed(tenant, known, same=fingerprint.decode() == idempotency.fingerprint)

    async def _replayed(self, tenant: str, job_id: bytes, *, same: bool) -> Submitted:
        if not same:
            raise IdempotencyError(
                "this Idempotency-Key was used before with another body; use a fresh key for another request"
            )
        return Submitted((await self.get(tenant, job_id.decode())).as_submitted(), replayed=True)

    # ---- read

    async def get(self, tenant: str | None, job_id: str) -> Job:
        """The job as it is now. `tenant=None` is for the platform's own processes.

        Raises NotFoundError, also for a job of another tenant; DamagedRecordError.
        """
        found = await self.get_many([job_id])
        job = found[0]
        if job is None or (tenant is not None and job.tenant != tenant):
            raise NotFoundError(f"there is no job {job_id[:80]!r}", code="job_not_found")
        return job

    async def get_many(self, job_ids: Sequence[str]) -> list[Job | None]:
        """Jobs in the order of their ids, None for those that do not exist."""
        raws = await asyncio.gather(*map(self._raw, job_ids))
        found = zip(job_ids, raws, strict=True)
        return list(await asyncio.gather(*(self._job(job_id, raw) for job_id, raw in found)))

    async def _raw(self, job_id: str) -> Mapping[bytes, bytes]:
        try:
            return _mapping(await self.link.command("HGETALL", keys.job(job_id)))
        except redis.ResponseError as exc:
            if "WRONGTYPE" not in str(exc):
                raise
            raise DamagedRecordError("the record is damaged: it is no hash") from exc

    async def _job(self, job_id: str, raw: Mapping[bytes, bytes]) -> Job | None:
        if not raw:
            return None
        try:
            return parse_record(raw, await self._end(job_id, raw))
        except NotFoundError:  # pruned since its record was read
            return None

    async def _end(self, job_id: str, raw: Mapping[bytes, bytes]) -> Json | None:
        end_id = raw.get(b"end_id")
        if end_id is None:
            return None
        found = await self.link.command("XRANGE", keys.journal(job_id), end_id, end_id)
        return (await resolve(self.link, [parse_line(found[0])]))[0].data if found else None

    async def lines(self, job_id: str, after: str = FIRST, limit: int | None = None) -> list[Line]:
        """Journal lines after a stream id, oldest first. Raises NotFoundError when the job is pruned meanwhile."""
        count = () if limit is None else ("COUNT", limit)
        found = await self.link.command("XRANGE", keys.journal(job_id), f"({after}", "+", *count)
        return await resolve(self.link, [parse_line(item) for item in found])

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
        asks: Sequence[approvals.Request] = (),
    ) -> Moved | None:
        """Makes one transition of the table and pushes the tickets it calls for.

        What an attempt that leaves the job has still reserved is settled at its worst case. `attempt` fences the move
        by its token. `due_ms` is a time in ms, or, when negative, that many ms from now, before which a queued job gets
        no ticket. `asks` is what a parked job asks of people, `hold` the budget that a paused one waits for;
        `for_children` lets a queued one go on as soon as none of its children is open. `if_lease_ended` makes it a
        rescue: None is returned when the lease is alive. Raises ConflictError when the job's status does not allow the
        move, or what it asked is still to be decided; StaleAttemptError when the attempt no longer owns the job,
        NotFoundError.
        """
        transition, parent = TRANSITIONS[action], job.spec.parent_id or job.id
        queue = attempt.queue if attempt else job.queue
        token = attempt.token if attempt else job.token
        packed = pack([{"status": transition.target, **(data or {})}])
        blob, content = next(iter(packed.blobs.items()), ("", b""))
        moved = self.link.script(
            script("transition"),
            [
                keys.job(job.id),
                keys.journal(job.id),
                keys.QUEUED,
                keys.DUE,
                keys.EXPIRING,
                keys.open_jobs(job.tenant),
                keys.ended_jobs(job.tenant, transition.target),
                keys.ended_jobs(job.tenant, job.status),
                keys.session_jobs(job.tenant, job.spec.session_id or ""),
                keys.STATS,
                queue_keys.wip(queue),
                queue_keys.execution(job.id, token),
                queue_keys.executions(job.id),
                queue_keys.job(job.id),
                queue_keys.registry(
                    transition.target if transition.ends else job.status,
                    queue or lanes.home(job.tenant, job.spec),
                ),
                keys.ENDED,
                keys.job_blobs(job.id),
                blob or keys.job_blobs(job.id),
                keys.HELD,
                keys.job(parent),
                keys.journal(parent),
                keys.children(parent),
                keys.children(job.id),
                keys.ORPHANS,
            ],
            [
                job.id,
                json.dumps(dict.fromkeys(sorted(transition.sources), True)),
                transition.target,
                ENDED_JSON,
                transition.event,
                packed.texts[0],
                keys.channel(job.id),
                attempt.token if attempt else "",
                int(if_lease_ended),
                LEASE_MARGIN,
                due_ms,
                stop_reason or "",
                int(lost),
                job.status,
                stats.ended_field(job.spec.agent, transition.target) if transition.ends else "",
                content,
                NAMES,
                hold.budget if hold else "",
                "" if hold is None else "+inf" if hold.until_ms is None else hold.until_ms,
                job.spec.parent_id or "",
                keys.channel(parent),
                dump({"job_id": job.id, "agent": job.spec.agent, "status": transition.target}),
                int(for_children),
                approvals.dump_requests(asks),
                approvals.NAMES,
                outbox.NAMES,
                lanes.NAMES,
                *(word for pair in (fields or {}).items() for word in pair),
            ],
        )
        queued = transition.target == "queued"
        pushed = [self.tickets.push(job, front=action in TO_THE_FRONT, again=True)] if queued else []
        verdict, *_ = await asyncio.gather(moved, *pushed)
        return await self._moved(job, action, verdict)

    async def _moved(self, job: Job, action: str, verdict: list[Any]) -> Moved | None:
        match verdict[0]:
            case b"moved":
                following = verdict[2].decode() or None
                if following:
                    with suppress(DamagedRecordError):  # a sweep sets it aside
                        await self.release(following)
                if verdict[3]:
                    await self._cancel_after_all(replace(job, status=TRANSITIONS[action].target))
                if parent := verdict[4].decode():
                    await self.undefer(parent)
                    await self.release(parent)
                return Moved(verdict[1].decode(), following)
            case b"alive":
                return None
            case b"stale":
                raise StaleAttemptError(f"job {job.id} has been handed to another attempt")
            case b"undecided":
                raise approvals.undecided(job.id, int(verdict[1]))
            case b"refused":
                status = verdict[1].decode()
                raise refusal(job.id, status, action)
            case _:
                raise NotFoundError(f"there is no job {job.id!r}", code="job_not_found")

    async def _cancel_after_all(self, job: Job) -> None:
        """The cancel of a running job that came just when its attempt put it to rest by itself."""
        with suppress(ConflictError):  # it is on its way again, and its next attempt sees that a cancel was asked for
            await self.move(job, "cancel", {"stop_reason": "cancelled"}, stop_reason="cancelled")

    async def release(self, job_id: str) -> bool:
        """Pushes a ticket of a queued job unless it has one; whether it did."""
        found = (await self.get_many([job_id]))[0]
        return found is not None and bool(await self.tickets.push(found, again=True))

    async def undefer(self, job_id: str) -> None:
        """Lets a queued job have a ticket that had to wait for a time."""
        await self.link.command("ZREM", keys.DUE, job_id)

    async def flag(self, job: Job, flag: str) -> str | None:
        """Asks a running attempt to `cancel` or `pause`; returns its worker, or None when the job is not running."""
        running, detail = await self.link.script(script("flag"), [keys.job(job.id)], [flag])
        return detail.decode() if running else None

    # ---- what an attempt records

    async def record(
        self,
        job_id: str,
        token: str,
        number: int,
        counters: Mapping[str, int],
        entries: Sequence[tuple[str, Json]],
        money: Money = NO_MONEY,
    ) -> int:
        """Appends entries to the journal, fenced; write `number` of the attempt changes nothing when repeated.

        `money` is reserved and settled in the same step. Returns 0, 1 when a cancel was asked for, 2 for a pause.
        Raises StaleAttemptError; BudgetError or KilledError when a reservation is refused, and nothing is written then.
        """
        args: list[str | int] = [token, number, keys.channel(job_id), job_id, money.dump(), NAMES]
        args += (outbox.NAMES, len(counters))
        for name, increment in counters.items():
            args += (name, increment)
        packed = pack(data for _, data in entries)
        for (type_, _), text in zip(entries, packed.texts, strict=True):
            args += (type_, text)
        answer = await self.link.script(
            script("record"),
            [keys.job(job_id), keys.journal(job_id), keys.job_blobs(job_id), *packed.blobs],
            [*args, *packed.blobs.values()],
        )
        match answer:
            case [b"refused", why]:
                raise BudgetError(refusal_from(why))
            case [b"killed", switch]:
                raise KilledError(switch.decode())
            case -1:
                raise StaleAttemptError(f"job {job_id} has been handed to another attempt")
            case flags:
                return int(flags)


def _mapping(raw: Any) -> dict[bytes, bytes]:
    return raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True))
