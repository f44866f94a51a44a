"""The twin of `jobs.approvals.Approvals` in memory; see `jobs.testing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agent_core.entries import ApprovalDecided, entry_to_json
from jobs.approvals import Approval, ApprovalStatus, Due, Request, Verdict, sha256_of, undecided
from jobs.errors import NotFoundError
from jobs.records import Job


class MemoryApprovals:
    """Method by method; `append` writes a line into a job's journal."""

    def __init__(self, clock: Callable[[], int], append: Callable[..., str]) -> None:
        self._clock = clock
        self._append = append
        self._records: dict[str, Approval] = {}
        self._decided: dict[str, int] = {}
        self._attempts: dict[str, int | str] = {}

    def ask(self, job: Job, asks: Sequence[Request], attempt: int | str) -> None:
        """Writes down what a job asks when it is parked."""
        self._attempts[job.id] = attempt
        for request in asks:
            now, text = self._clock(), request.to_json()
            made = Approval(
                request.approval_id,
                job.tenant,
                job.id,
                request,
                sha256_of(request.input),
                "pending",
                now,
                now + request.ms if request.ms else None,
            )
            self._records[made.id] = made
            self._append(job.id, "approval.requested", text, attempt)

    def withdraw(self, job_id: str, *, goes_on: bool) -> None:
        """Withdraws what a job asked and will get no answer to. Raises ConflictError when it is to go on with that."""
        pending = self._pending(job_id)
        if goes_on and pending:
            raise undecided(job_id, len(pending))
        for found in pending:
            self._records[found.id] = replace(found, status="withdrawn", decided_ms=self._clock())
        self._decided.pop(job_id, None)

    async def get(self, tenant: str | None, approval_id: str) -> Approval:
        found = self._records.get(approval_id)
        if found is None or tenant not in (None, found.tenant):
            raise NotFoundError(f"there is no approval {approval_id[:80]!r}", code="approval_not_found")
        return found

    async def of_job(self, job_id: str) -> list[str]:
        return sorted(found.id for found in self._records.values() if found.job_id == job_id)

    async def rule(
        self, approval: Approval, status: ApprovalStatus, ruling: ApprovalDecided, *, expired: bool = False
    ) -> Verdict:
        found, now = self._records[approval.id], self._clock()
        if found.status != "pending":
            return Verdict("refused", found.status)
        over = found.expires_ms is not None and found.expires_ms <= now
        if over != expired:
            return Verdict("expired" if over else "early")
        self._records[found.id] = replace(found, status=status, decided_ms=now, ruling=ruling)
        self._append(found.job_id, ruling.TYPE, entry_to_json(ruling), self._attempts[found.job_id])
        pending = self._pending(found.job_id)
        if not pending:
            self._decided[found.job_id] = now
        return Verdict("decided", status, len(pending))

    async def due(self, most: int, left_ms: int) -> Due:
        now = self._clock()
        waiting = [found for found in self._records.values() if found.status == "pending"]
        expired = [found.id for found in waiting if found.expires_ms is not None and found.expires_ms <= now]
        decided = [job_id for job_id, since in self._decided.items() if since <= now - left_ms]
        return Due(expired[:most], decided[:most])

    async def pending(self) -> int:
        return sum(found.status == "pending" for found in self._records.values())

    def _pending(self, job_id: str) -> list[Approval]:
        return [found for found in self._records.values() if found.job_id == job_id and found.status == "pending"]
