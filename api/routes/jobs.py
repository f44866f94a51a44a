"""Submitting jobs, and looking at them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from agent_core.types import Json
from api import docs
from api.auth import Caller, Reader, Writer
from api.body import StrictRoute
from api.errors import problem, request_id_of
from api.idempotency import once
from api.responses import job_response, json_response, page
from api.schemas import Batch, ListedStatus, Submission, Time, Word
from api.submission import fingerprinted, idempotency_of
from api.waiting import until_settled
from jobs.errors import JobsError
from jobs.listing import Filters, list_jobs
from jobs.moves import Idempotency

RUN_SECONDS = 30
MOST_WAIT = 60

router = APIRouter(tags=["jobs"], route_class=StrictRoute)
JobId = Annotated[str, Path(max_length=80, examples=["job_018c2f0a1b2c3d4e5f60718293a4b5c6"])]


@router.post("/jobs", status_code=202, response_model=None, responses=docs.JOB_ACCEPTED)
async def submit_job(request: Request, body: Submission, caller: Writer) -> Response:
    """Submits a job. It is answered after the job is written down; from then on it will reach an end."""
    idempotency = await idempotency_from(request)
    submitted = await caller.services.intake.submit(caller.tenant, body, idempotency, caller.key.key_id)
    return job_response(submitted.job, 202, replayed=submitted.replayed)


@router.post("/run", response_model=None, responses=docs.JOB_RUN)
async def run_job(request: Request, body: Submission, caller: Writer) -> Response:
    """Submits a job and waits up to 30 seconds: 200 when it has ended by then, else 202 as for a submission."""
    idempotency = await idempotency_from(request)
    submitted = await caller.services.intake.submit(caller.tenant, body, idempotency, caller.key.key_id)
    caller.changes(submitted.job.id)
    job = await until_settled(caller.services.store, caller.services.hub, caller.tenant, submitted.job.id, RUN_SECONDS)
    return job_response(job, 200 if job.ended else 202, replayed=submitted.replayed)


@router.post("/jobs/batch", response_model=None, responses=docs.BATCH)
async def submit_batch(request: Request, body: Batch, caller: Writer) -> Response:
    """Submits up to 1,000 jobs. Each is accepted or refused on its own; the answers stand in the order of the jobs."""
    items: list[Json] = []

    async def submit_all() -> Response:
        items[:] = await asyncio.gather(
            *(_batch_item(request, caller, number, item) for number, item in enumerate(body.jobs))
        )
        return json_response({"data": items})

    def is_final() -> bool:
        return not any(item["error"]["status"] == 503 for item in items if "error" in item)

    return await once(request, caller, submit_all, is_final=is_final)


@router.get("/jobs/{job_id}", response_model=None, responses=docs.JOB)
async def get_job(
    job_id: JobId,
    caller: Reader,
    wait: Annotated[float, Query(ge=0, le=MOST_WAIT, description="Seconds to wait for its end.")] = 0,
) -> Response:
    """The job; with `wait`, once it has ended or needs someone, or when that time is over."""
    return job_response(await until_settled(caller.services.store, caller.services.hub, caller.tenant, job_id, wait))


@router.get("/jobs", response_model=None, responses=docs.JOBS)
async def get_jobs(
    caller: Reader,
    status: ListedStatus | None = None,
    agent: Annotated[str | None, Query(max_length=64)] = None,
    tag: Annotated[Word | None, Query()] = None,
    session_id: Annotated[Word | None, Query()] = None,
    user: Annotated[Word | None, Query()] = None,
    created_after: Annotated[Time | None, Query()] = None,
    created_before: Annotated[Time | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(max_length=200, description="The `next_cursor` of the page before.")] = None,
) -> Response:
    """Jobs, the newest first."""
    filters = Filters(status, agent, tag, session_id, user, created_after, created_before)
    jobs, cursor = await list_jobs(caller.services.store, caller.tenant, filters, limit=limit, after=after)
    return json_response(page([job.to_json() for job in jobs], cursor))


async def idempotency_from(request: Request) -> Idempotency | None:
    """The request's idempotency key with its fingerprint, for what the job store writes once by itself."""
    key = idempotency_of(request)
    return fingerprinted(request, key, await request.json()) if key else None


async def _batch_item(request: Request, caller: Caller, number: int, item: Any) -> Json:
    given = idempotency_of(request)
    idempotency = fingerprinted(request, given, item, part=str(number)) if given else None
    try:
        submitted = await caller.services.intake.submit_raw(caller.tenant, item, idempotency, caller.key.key_id)
    except JobsError as exc:
        return {"error": problem(exc, request_id_of(request))}
    return {"job": submitted.job.to_json()}
