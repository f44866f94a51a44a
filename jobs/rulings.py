"""What people decide about the calls that a parked job waits with: each once, whereupon the job goes on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from agent_core.entries import ApprovalDecided
from agent_core.failpoints import failpoint
from agent_core.types import Json
from jobs.approvals import Approval, ApprovalStatus, Verdict, sha256_of
from jobs.errors import ConflictError, ForbiddenError, GoneError, InvalidError, NotFoundError
from jobs.ports import Store

APPROVAL = "approval"
BY_EXPIRY = "expiry"
"""Who decided what nobody did."""
TOO_LATE = "nobody decided in time"
STATUS_OF: dict[str, ApprovalStatus] = {"approve": "approved", "deny": "denied"}


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision as it is sent in. `input` is what the call is to run with in place of its own, or its own as it was
    seen; `input_sha256` is the hash of what was seen; `answer` is that to a question.
    """

    decision: Literal["approve", "deny"]
    reason: str | None = None
    input: Json | None = None
    input_sha256: str | None = None
    answer: str | None = None


async def decide(store: Store, tenant: str, approval_id: str, ruling: Ruling, by: str) -> Approval:
    """Decides about one call; with the last one that its job waits for, the job is queued. `by` is an API key's id.

    Raises NotFoundError; ForbiddenError when the job is the key's own and its tool's policy bars that; ConflictError
    when it was decided, withdrawn, or is about another input than was seen; GoneError when it has expired; InvalidError
    when the decision is none for such a call.
    """
    found = await store.approvals.get(tenant, approval_id)
    asked = found.request
    if not asked.requester_may_decide and by == asked.requester:
        raise ForbiddenError("the API key that submitted a job cannot decide about this call of it", code="own_job")
    _require_pending(found)
    if ruling.input_sha256 not in (None, found.input_sha256):
        raise ConflictError(f"approval {found.id} is about another input than was seen; look again", code="changed")
    _check(found, ruling)
    edited = ruling.input if ruling.input is not None and sha256_of(ruling.input) != found.input_sha256 else None
    entry = _entry(found, ruling.decision, by, ruling.reason, edited, ruling.answer)
    verdict = await store.approvals.rule(found, STATUS_OF[ruling.decision], entry)
    failpoint("after_ruling")
    if verdict.outcome != "decided":
        raise _refusal(found.id, verdict)
    if verdict.pending == 0:
        await go_on(store, found.job_id)
    return await store.approvals.get(tenant, approval_id)


async def expire(store: Store, approval_id: str) -> bool:
    """Takes the default decision about a call that has waited for too long; whether this was the one that took it."""
    try:
        found = await store.approvals.get(None, approval_id)
    except NotFoundError:
        return False
    entry = _entry(found, found.request.on_expiry, BY_EXPIRY, TOO_LATE)
    verdict = await store.approvals.rule(found, "expired", entry, expired=True)
    if verdict.outcome == "decided" and verdict.pending == 0:
        await go_on(store, found.job_id)
    return verdict.outcome == "decided"


async def go_on(store: Store, job_id: str) -> None:
    """Queues a job of which every approval is decided, unless someone has, or it is to go another way."""
    with suppress(NotFoundError, ConflictError):
        job = await store.get(None, job_id)
        if job.stop_reason == APPROVAL:
            await store.move(job, "decide")


def _check(found: Approval, ruling: Ruling) -> None:
    if found.request.kind == "tool":
        if ruling.answer is not None:
            raise InvalidError("an answer is for a question; this is a call of a tool", code="not_a_question")
        if ruling.decision == "deny" and ruling.input is not None:
            raise InvalidError("a call that is denied needs no input", code="input_without_approval")
        return
    if ruling.input is not None:
        raise InvalidError("a question has no input to change; send an answer", code="not_a_call")
    if (ruling.answer is None) == (ruling.decision == "approve"):
        raise InvalidError("approve a question with an answer; deny it without one", code="answer_needed")
    choices = found.request.input.get("choices")
    if ruling.answer is not None and choices and ruling.answer not in choices:
        raise InvalidError(f"the answer must be one of: {', '.join(choices)}", code="not_a_choice")


def _require_pending(found: Approval) -> None:
    if found.status != "pending":
        raise _refusal(found.id, Verdict("refused", found.status))


def _refusal(approval_id: str, verdict: Verdict) -> Exception:
    if verdict.outcome == "missing":
        return NotFoundError(f"there is no approval {approval_id!r}", code="approval_not_found")
    if verdict.outcome == "expired" or verdict.status == "expired":
        return GoneError(f"approval {approval_id} has expired; its default decision holds", code="expired")
    if verdict.status == "withdrawn":
        return ConflictError(f"approval {approval_id} is withdrawn: its job does not wait any more", code="withdrawn")
    return ConflictError(f"approval {approval_id} was {verdict.status} before", code="already_decided")


def _entry(
    found: Approval,
    decision: Literal["approve", "deny"],
    by: str,
    reason: str | None = None,
    input: Json | None = None,
    answer: str | None = None,
) -> ApprovalDecided:
    return ApprovalDecided(found.id, found.request.call_id, found.request.name, decision, by, reason, input, answer)
