"""Approvals on the worker's side: what a parking job asks, and the duty that decides what nobody did.

Every worker runs the duty; each thing that it does is done by one of them, for each decision is a script's. A job that
waits costs none of them anything: what is due stands in two sorted sets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from agent_core.approvals import Policy
from agent_core.types import Json
from jobs.approvals import Request
from jobs.errors import UnavailableError
from jobs.ports import Store
from jobs.records import Job
from jobs.rulings import expire, go_on

log = structlog.get_logger("worker")
SWEEP_SECONDS = 1.0
MOST_AT_ONCE = 200
LEFT_MS = 2000
"""For how long a job is left to whoever took its last decision, before it is taken to have died."""


def requests(job: Job, policy: Policy, calls: Sequence[Json]) -> list[Request]:
    """What a job asks of people about some calls."""
    return [_request(job, policy, call) for call in calls]


def _request(job: Job, policy: Policy, call: Json) -> Request:
    name = call["name"]
    terms = policy.terms(name)
    return Request(
        call_id=call["id"],
        name=name,
        input=call["input"],
        effect=policy.effect(name),
        kind="question" if policy.asks_question(name) else "tool",
        policy_version=policy.version(name),
        expires_in=terms.expires_in,
        on_expiry=terms.on_expiry,
        requester=job.spec.submitted_by,
        requester_may_decide=terms.requester_may_decide,
    )


class ApprovalWatch:
    """Takes default decisions as they fall due, and lets jobs go on whose last decision nobody followed up."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            try:
                await self.sweep()
            except UnavailableError as exc:
                log.warning("approvals: %s", exc)
            except Exception:  # whatever a record may hold; no lease may be lost over it
                log.exception("a look at the approvals failed")
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self, left_ms: int = LEFT_MS) -> None:
        """Does what is due."""
        due = await self._store.approvals.due(MOST_AT_ONCE, left_ms)
        decided = await asyncio.gather(*(expire(self._store, approval_id) for approval_id in due.expired))
        if any(decided):
            log.info("decided by default", approvals=sum(decided))
        await asyncio.gather(*(go_on(self._store, job_id) for job_id in due.decided))
