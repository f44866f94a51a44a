"""Steering jobs: cancel, pause, resume, retry, fork, reconcile; and why one is not finished."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from fastapi import APIRouter, Request, Response

from api import docs
from api.auth import Approver, Caller, Reader, Writer
from api.body import StrictRoute
from api.idempotency import once
from api.responses import job_response, json_response, page
from api.routes.jobs import JobId, idempotency_from
from api.schemas import Fork, Limits, Nothing, Reconciliation
from jobs import actions
from jobs.decisions import CallDecision, abandon, decide
from jobs.explain import explain
from jobs.records import Job
from jobs.store import JobStore

Action = Callable[[JobStore, str, str], Awaitable[Job]]
router = APIRouter(tags=["jobs"], route_class=StrictRoute)


@router.post("/jobs/{job_id}/cancel", response_model=None, responses=docs.JOB_ACTION)
async def cancel_job(request: Request, job_id: JobId, caller: Writer, body: Nothing | None = None) -> Response:
    """Cancels the job: a waiting one at once, a running one as soon as its worker hears of it."""
    return await _acted(request, caller, job_id, actions.cancel)


@router.post("/jobs/{job_id}/pause", response_model=None, responses=docs.JOB_ACTION)
async def pause_job(request: Request, job_id: JobId, caller: Writer, body: Nothing | None = None) -> Response:
    """Pauses the job: a waiting one at once, a running one at its next step."""
    return await _acted(request, caller, job_id, actions.pause)


@router.post("/jobs/{job_id}/resume", response_model=None, responses=docs.JOB_ACTION)
async def resume_job(request: Request, job_id: JobId, caller: Writer, body: Limits | None = None) -> Response:
    """Queues a paused job again, with raised limits if the body has some."""
    budget = body.budget.changes() if body and body.budget else None
    return await _acted(request, caller, job_id, partial(actions.resume, budget=budget))


@router.post("/jobs/{job_id}/retry", response_model=None, responses=docs.JOB_ACTION)
async def retry_job(request: Request, job_id: JobId, caller: Writer, body: Limits | None = None) -> Response:
    """Queues a job that failed, was cancelled or expired again; it goes on from its last recorded step."""
    budget = body.budget.changes() if body and body.budget else None
    return await _acted(request, caller, job_id, partial(actions.retry, budget=budget))


@router.post("/jobs/{job_id}/fork", status_code=202, response_model=None, responses=docs.JOB_ACCEPTED)
async def fork_job(request: Request, job_id: JobId, caller: Writer, body: Fork | None = None) -> Response:
    """Starts a new job from a step of this one, with changes. The steps it starts with cost it nothing."""
    submitted = await caller.services.intake.fork(
        caller.tenant, job_id, body or Fork(), await idempotency_from(request), caller.key.key_id
    )
    return job_response(submitted.job, 202, replayed=submitted.replayed)


@router.post("/jobs/{job_id}/reconcile", response_model=None, responses=docs.JOB_ACTION)
async def reconcile_job(request: Request, job_id: JobId, caller: Approver, body: Reconciliation) -> Response:
    """Says of each call that a crash interrupted whether it happened, whereupon the job goes on; or stops the job."""
    by = caller.key.key_id
    if body.decisions is None:
        return await _acted(request, caller, job_id, partial(abandon, reason=body.reason, by=by))
    decisions = [CallDecision(**decision.model_dump()) for decision in body.decisions]
    return await _acted(request, caller, job_id, partial(decide, decisions=decisions, by=by))


@router.get("/jobs/{job_id}/explain", response_model=None, responses=docs.EXPLANATION)
async def explain_job(job_id: JobId, caller: Reader) -> Response:
    """Why the job is not finished: which gate holds it, and its place in the queue."""
    store = caller.services.store
    return json_response(await explain(store, store.link, await store.get(caller.tenant, job_id)))


@router.get("/jobs/{job_id}/artifacts", response_model=None, responses=docs.FILES)
async def get_artifacts(job_id: JobId, caller: Reader) -> Response:
    """The files that the job's tools kept; each is downloaded from `/v1/files/{id}`."""
    await caller.services.store.get(caller.tenant, job_id)
    return json_response(page([record.to_json() for record in await caller.services.files.artifacts(job_id)]))


async def _acted(request: Request, caller: Caller, job_id: str, action: Action) -> Response:
    async def act() -> Response:
        return job_response(await action(caller.services.store, caller.tenant, job_id))

    return await once(request, caller, act)
