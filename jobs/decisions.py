"""What a person decides about a job that waits with `needs_reconcile`: of its calls nobody knows if they happened.

The decisions stand in the entry of the one transition that they cause; the next attempt takes them from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent_core.types import Json, Verdict
from jobs.errors import ConflictError, InvalidError
from jobs.journal import Line
from jobs.ports import Store
from jobs.records import Job
from jobs.status import refusal

NEEDS_RECONCILE = "needs_reconcile"


@dataclass(frozen=True, slots=True)
class CallDecision:
    """What became of one call; `result` is what the model gets to see of one that happened."""

    call_id: str
    decision: Verdict
    result: Any = None

    def to_json(self) -> Json:
        result = {"result": self.result} if self.decision == "happened" else {}
        return {"call_id": self.call_id, "decision": self.decision, **result}


async def decide(store: Store, tenant: str, job_id: str, decisions: Sequence[CallDecision], by: str) -> Job:
    """Queues the job again with a decision for each call that it waits for. `by` is the id of who decided.

    Raises InvalidError when the decisions are not one for each of the waiting calls, ConflictError when the job does
    not wait for them, NotFoundError.
    """
    job, lines = await _waiting_job(store, tenant, job_id)
    parked = parking(lines)
    _check([call["call_id"] for call in parked.data["calls"]], [decision.call_id for decision in decisions])
    data = {"decisions": [decision.to_json() for decision in decisions], "by": by, "parked": parked.id}
    await store.move(job, "decide", data)
    return await store.get(tenant, job_id)


async def abandon(store: Store, tenant: str, job_id: str, reason: str | None, by: str) -> Job:
    """Fails the job for good, with what its agent last said as the partial output. Raises as `decide` does."""
    job, lines = await _waiting_job(store, tenant, job_id)
    names = ", ".join(sorted({call["tool"] for call in parking(lines).data["calls"]}))
    message = reason or f"stopped by a person: nobody knows whether {names} happened"
    error = {"code": NEEDS_RECONCILE, "message": message}
    data = {"stop_reason": NEEDS_RECONCILE, "output": _last_text(lines), "error": error, "by": by}
    await store.move(job, "abandon", data, stop_reason=NEEDS_RECONCILE)
    return await store.get(tenant, job_id)


def parking(lines: Sequence[Line]) -> Line:
    """The newest line with which the job was parked; its `calls` are what it waits for. Raises LookupError."""
    found = next((line for line in reversed(lines) if line.type == "job.requires_action"), None)
    if found is None:
        raise LookupError("the journal has no line that parked the job")
    return found


def open_decisions(lines: Sequence[Line]) -> list[Json]:
    """The decisions that no attempt has taken over yet.

    One about an earlier parking is none: the person had not seen what the job came to wait for since.
    """
    parked, taken, found = "", set[str](), dict[str, Json]()
    for line in lines:
        if line.type == "job.requires_action":
            parked, taken, found = line.id, set(), {}
        elif line.type == "job.resumed" and line.data.get("parked") == parked:
            found = {decision["call_id"]: decision for decision in line.data["decisions"]}
        elif line.type == "tool.reconciled":
            taken.add(line.data["call_id"])
    return [decision for call_id, decision in found.items() if call_id not in taken]


async def _waiting_job(store: Store, tenant: str, job_id: str) -> tuple[Job, list[Line]]:
    job = await store.get(tenant, job_id)
    if job.status != "requires_action":
        raise refusal(job_id, job.status, "decide")
    if job.stop_reason != NEEDS_RECONCILE:
        raise ConflictError(
            f"job {job_id} waits for {job.stop_reason}, not for word of what became of a call", code="other_action"
        )
    return job, await store.lines(job_id)


def _check(waiting: Sequence[str], decided: Sequence[str]) -> None:
    unknown = [call_id for call_id in decided if call_id not in waiting]
    if unknown:
        raise InvalidError(f"the job does not wait for {_list(unknown)} but for {_list(waiting)}", code="unknown_call")
    missing = [call_id for call_id in waiting if call_id not in decided]
    if missing:
        raise InvalidError(f"a decision is missing for {_list(missing)}", code="undecided_call")
    if len(decided) > len(waiting):
        raise InvalidError("there are two decisions about one call", code="decided_twice")


def _list(call_ids: Sequence[str]) -> str:
    return ", ".join(call_id[:80] for call_id in call_ids)


def _last_text(lines: Sequence[Line]) -> str | None:
    """The text of the agent's newest reply that has any."""
    for line in reversed(lines):
        if line.type == "model.completed" and line.data.get("role") != "summariser":
            said = "".join(block["text"] for block in line.data["content"] if block.get("type") == "text")
            if said.strip():
                return said
    return None
