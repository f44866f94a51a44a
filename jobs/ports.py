"""What `jobs.store.JobStore` and its twin in memory, `jobs.testing.MemoryStore`, have in common.

What only acts on jobs takes a `Store`, and so can be tried without Redis. What the methods promise stands at those of
`JobStore` and `jobs.queue.Tickets`; one conformance suite holds both to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Protocol

from agent_core.entries import ApprovalDecided
from agent_core.types import Budget, Json
from jobs.approvals import Approval, ApprovalStatus, Due, Request, Verdict
from jobs.journal import FIRST, Line
from jobs.money import NO_MONEY, Money
from jobs.moves import Attempt, Child, Hold, Idempotency, Moved, Submitted
from jobs.queue import FROM_THE_START, MOST_OVERDUE, Claim, Overdue, PassOver
from jobs.records import Job, JobSpec


class TicketQueue(Protocol):
    """See `jobs.queue.Tickets`."""

    def push(self, job: Job, *, front: bool = False, again: bool = False) -> Awaitable[int]: ...

    async def claim(
        self, queues: Sequence[str], versions: Iterable[str], *, most: int, lease: int, worker: str
    ) -> list[Claim]: ...

    async def beat(self, members: Sequence[tuple[str, str, str]], lease: int) -> list[int]: ...

    async def overdue(
        self, *, most: int = MOST_OVERDUE, unticketed_ms: int = 10_000, skip: PassOver = FROM_THE_START
    ) -> Overdue: ...

    async def sweep_limits(self) -> int: ...

    async def set_aside(self, job_id: str, token: str = "", queue: str = "") -> None: ...

    async def stop(self, job_id: str, worker: str) -> None: ...

    async def depths(self) -> dict[str, int]: ...

    async def running(self) -> int: ...

    async def place(self, job: Job) -> int | None: ...


class ApprovalRecords(Protocol):
    """See `jobs.approvals.Approvals`."""

    async def get(self, tenant: str | None, approval_id: str) -> Approval: ...

    async def of_job(self, job_id: str) -> list[str]: ...

    async def rule(
        self, approval: Approval, status: ApprovalStatus, ruling: ApprovalDecided, *, expired: bool = False
    ) -> Verdict: ...

    async def due(self, most: int, left_ms: int) -> Due: ...

    async def pending(self) -> int: ...


class Store(Protocol):
    """See `jobs.store.JobStore`."""

    @property
    def tickets(self) -> TicketQueue: ...

    @property
    def approvals(self) -> ApprovalRecords: ...

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
    ) -> Submitted: ...

    async def children(self, job_id: str) -> list[str]: ...

    async def earlier(self, tenant: str, idempotency: Idempotency) -> Submitted | None: ...

    async def get(self, tenant: str | None, job_id: str) -> Job: ...

    async def get_many(self, job_ids: Sequence[str]) -> list[Job | None]: ...

    async def lines(self, job_id: str, after: str = FIRST, limit: int | None = None) -> list[Line]: ...

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
    ) -> Moved | None: ...

    async def release(self, job_id: str) -> bool: ...

    async def undefer(self, job_id: str) -> None: ...

    async def flag(self, job: Job, flag: str) -> str | None: ...

    async def record(
        self,
        job_id: str,
        token: str,
        number: int,
        counters: Mapping[str, int],
        entries: Sequence[tuple[str, Json]],
        money: Money = NO_MONEY,
    ) -> int: ...
