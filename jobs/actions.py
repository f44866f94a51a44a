"""What a person or a program may do to a job: cancel, pause, resume, retry, fork."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from agent_core.types import Budget, Json
from jobs.errors import ConflictError, InvalidError, NotFoundError
from jobs.journal import Line
from jobs.link import milliseconds
from jobs.moves import Idempotency, Submitted
from jobs.ports import Store
from jobs.records import DamagedRecordError, Job, budget_fields

ROUNDS = 5
"""A job that moves between our look and our script is looked at again, this often at most."""
COPIED = frozenset(
    {"model.completed", "tool.requested", "tool.completed", "state.changed", "context.compacted", "context.cleared"}
)
REMEMBERED = frozenset({"memory.recalled", "memory.unavailable"})
"""Which memories the copied steps were shown; a fork from the bare input has its own."""
FORK_CHANGES = frozenset({"priority", "tags", "metadata", "user", "run_at", "expires_at", "submitted_by"})


async def cancel(store: Store, tenant: str, job_id: str) -> Job:
    """Ends a job that waits; tells the worker of a running one to stop at once. A cancelled job stays as it is.

    Raises ConflictError when the job has ended otherwise, NotFoundError.
    """
    for _ in range(ROUNDS):
        job = await store.get(tenant, job_id)
        if job.status == "cancelled":
            return job
        if job.status == "running":
            worker = await store.flag(job, "cancel")
            if worker is not None:
                await store.tickets.stop(job_id, worker)
                return await store.get(tenant, job_id)
        elif await _moved(store, job, "cancel", stop_reason="cancelled"):
            await cancel_children(store, job)
            return await store.get(tenant, job_id)
    raise ConflictError(f"job {job_id} is changing too quickly; try again")


async def cancel_children(store: Store, job: Job) -> None:
    """Ends what a job that has ended has started, and what that has started. Who dies over it leaves it to a reaper."""
    for child_id in await store.children(job.id):
        with suppress(ConflictError, NotFoundError, DamagedRecordError):
            await cancel(store, job.tenant, child_id)


async def pause(store: Store, tenant: str, job_id: str) -> Job:
    """Pauses a waiting job at once and a running one at its next step. Raises as `cancel` does."""
    for _ in range(ROUNDS):
        job = await store.get(tenant, job_id)
        if job.status == "paused":
            return job
        if job.status == "running":
            if await store.flag(job, "pause") is not None:
                return await store.get(tenant, job_id)
        elif await _moved(store, job, "pause"):
            return await store.get(tenant, job_id)
    raise ConflictError(f"job {job_id} is changing too quickly; try again")


async def resume(store: Store, tenant: str, job_id: str, budget: Mapping[str, Any] | None = None) -> Job:
    """Puts a paused job back into the queue, where it waits for its `run_at` if that is still to come.

    `budget` raises its limits. Raises ConflictError when it is not paused, NotFoundError.
    """
    job = await store.get(tenant, job_id)
    due = job.spec.run_at or 0
    fields = budget_fields(job.budget.override(budget)) if budget else {}
    await store.move(job, "resume", fields=fields, due_ms=due if due > milliseconds() else 0)
    return await store.get(tenant, job_id)


async def retry(store: Store, tenant: str, job_id: str, budget: Mapping[str, Any] | None = None) -> Job:
    """Queues a job that ended badly again; it goes on from its last recorded step. `budget` raises its limits.

    Raises ConflictError when the job has not failed, been cancelled or expired, NotFoundError.
    """
    job = await store.get(tenant, job_id)
    fields: dict[str, str | int] = {"lost": 0}
    if budget:
        fields |= budget_fields(job.budget.override(budget))
    await store.move(job, "retry", {"retry": True}, fields=fields)
    return await store.get(tenant, job_id)


async def fork(
    store: Store,
    tenant: str,
    job_id: str,
    *,
    step: int | None,
    changes: Mapping[str, Any],
    budget: Mapping[str, Any] | None = None,
    message: str | None = None,
    idempotency: Idempotency | None = None,
) -> Submitted:
    """Starts a new job from step `step` of another (None: its last), with changes.

    Step n is everything up to the n-th model turn and the results of its tool calls; 0 is the bare input. `message` is
    said by the user at that point; `input` among the changes replaces the first message and needs step 0. The copied
    steps cost the new job nothing. Raises InvalidError when the step is not there, NotFoundError.
    """
    source = await store.get(tenant, job_id)
    lines = await store.lines(job_id)
    last = max((line.data["step"] for line in lines if line.type == "model.completed"), default=0)
    at = last if step is None else step
    if not 0 <= at <= last:
        raise InvalidError(f"job {job_id} has steps 0 to {last}, not {at}", code="no_such_step")
    if "input" in changes and at != 0:
        raise InvalidError("a new input needs step 0; to say something at a later step, give `message`")
    seed = _seed(lines, at)
    if message is not None:
        seed.append(("user.message", {"text": message}))
    elif at and _answered(*seed[-1]):
        raise InvalidError(f"step {at} is a final answer; give a `message` to go on from it", code="message_needed")
    known = {k: v for k, v in changes.items() if k in FORK_CHANGES | {"input"}}
    spec = replace(source.spec, session_id=None, run_at=None, expires_at=None, **known)
    spec = replace(spec, forked_from={"job_id": job_id, "step": at}, parent_id=None, ancestors=[], ancestor_agents=[])
    limits: Budget = source.budget.override(budget or {})
    return await store.submit(tenant, spec, limits, idempotency=idempotency, seed=seed)


def _seed(lines: list[Line], at: int) -> list[tuple[str, Json]]:
    """The entries of the first `at` steps. An intent without a result is left out: its call has not been made here."""
    wanted = COPIED | {"user.message"} | (REMEMBERED if at else set())
    kept = [line for line in lines if line.type in wanted and line.data.get("step", 0) <= at]
    kept = [line for line in kept if line.type != "state.changed" or (at and "why" in line.data)]
    end = max((line.position for line in kept if line.type in COPIED), default=(0, 0))
    done = {line.data["call_id"] for line in kept if line.type == "tool.completed"}
    return [
        (line.type, line.data)
        for line in kept
        if line.type != "tool.requested" or line.data["call_id"] in done
        if line.type != "user.message" or line.position < end
    ]


def _answered(type_: str, data: Json) -> bool:
    """Whether an entry is a reply after which nothing follows by itself."""
    reply = type_ == "model.completed" and data.get("role") != "summariser"
    return reply and data["stop_reason"] not in ("tool_use", "pause_turn")


async def _moved(store: Store, job: Job, action: str, stop_reason: str | None = None) -> bool:
    """Makes the move; False when the job has meanwhile come into a status from which it is made another way."""
    try:
        await store.move(job, action, stop_reason=stop_reason)
    except ConflictError:
        if job.ended or job.status == "requires_action":
            raise
        return False
    return True
