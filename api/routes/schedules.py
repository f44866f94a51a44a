"""Schedules, and what became of each time that came."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from agent_core.types import Json
from api import docs
from api.auth import Caller, Reader, Scheduler
from api.body import StrictRoute
from api.errors import FieldsError
from api.idempotency import once
from api.responses import job_response, json_response, page
from api.schedules import ScheduleChange, ScheduleIn
from api.schemas import Nothing, Submission
from jobs.errors import ConflictError
from jobs.firing import Launcher
from jobs.listing import list_schedules, list_slots
from jobs.schedules import Schedule, Schedules, ScheduleSpec

router = APIRouter(tags=["schedules"], route_class=StrictRoute)
ScheduleId = Annotated[str, Path(max_length=80, examples=["sched_018c2f0a1b2c3d4e5f60718293a4b5c6"])]
Limit = Annotated[int, Query(ge=1, le=200)]
After = Annotated[str | None, Query(max_length=200, description="The `next_cursor` of the page before.")]
DryRun = Annotated[bool, Query(description="Only show what it would be, with its next times.")]


@router.post("/schedules", status_code=201, response_model=None, responses=docs.SCHEDULE_MADE)
async def create_schedule(request: Request, body: ScheduleIn, caller: Scheduler, dry_run: DryRun = False) -> Response:
    """Makes a schedule. With `dry_run` nothing is saved, and the answer is 200."""
    spec = await _checked(caller, body.spec())
    if dry_run:
        now = await _schedules(caller).now()
        return json_response(Schedule("", caller.tenant, spec, cursor_ms=now, created_ms=now).to_json(now))

    async def create() -> Response:
        made = await _schedules(caller).create(caller.tenant, spec, caller.key.key_id)
        return await _shown(caller, made, 201)

    return await once(request, caller, create)


@router.get("/schedules", response_model=None, responses=docs.SCHEDULES)
async def get_schedules(caller: Reader, limit: Limit = 50, after: After = None) -> Response:
    """The tenant's schedules, the newest first."""
    found, cursor = await list_schedules(caller.services.link, caller.tenant, limit=limit, after=after)
    now = await _schedules(caller).now()
    return json_response(page([schedule.to_json(now) for schedule in found], cursor))


@router.get("/schedules/{schedule_id}", response_model=None, responses=docs.SCHEDULE)
async def get_schedule(schedule_id: ScheduleId, caller: Reader) -> Response:
    """A schedule, with its next ten times."""
    return await _shown(caller, await _schedules(caller).get(caller.tenant, schedule_id))


@router.patch("/schedules/{schedule_id}", response_model=None, responses=docs.SCHEDULE)
async def change_schedule(schedule_id: ScheduleId, body: ScheduleChange, caller: Scheduler) -> Response:
    """Changes what the body names. A new clock counts from now; a schedule that had ended goes on."""
    schedule = await _schedules(caller).get(caller.tenant, schedule_id)
    changes = body.changes(schedule.spec.job)
    await _check_job(caller, changes["job"])
    _check_end(changes.get("ends_at"), await _schedules(caller).now())
    return await _shown(caller, await _schedules(caller).change(schedule, changes))


@router.delete("/schedules/{schedule_id}", status_code=204, response_model=None, responses=docs.SCHEDULE_GONE)
async def delete_schedule(schedule_id: ScheduleId, caller: Scheduler) -> Response:
    """Removes a schedule and its slot ledger. Jobs that it submitted go on."""
    await _schedules(caller).remove(await _schedules(caller).get(caller.tenant, schedule_id))
    return Response(status_code=204)


@router.post("/schedules/{schedule_id}/pause", response_model=None, responses=docs.SCHEDULE)
async def pause_schedule(
    request: Request, schedule_id: ScheduleId, caller: Scheduler, body: Nothing | None = None
) -> Response:
    """Lets no slot come until it is resumed."""

    async def act() -> Response:
        schedule = await _schedules(caller).get(caller.tenant, schedule_id)
        return await _shown(caller, await _schedules(caller).pause(schedule))

    return await once(request, caller, act)


@router.post("/schedules/{schedule_id}/resume", response_model=None, responses=docs.SCHEDULE)
async def resume_schedule(
    request: Request, schedule_id: ScheduleId, caller: Scheduler, body: Nothing | None = None
) -> Response:
    """Lets slots come again, from now on."""

    async def act() -> Response:
        schedule = await _schedules(caller).get(caller.tenant, schedule_id)
        return await _shown(caller, await _schedules(caller).resume(schedule))

    return await once(request, caller, act)


@router.post("/schedules/{schedule_id}/trigger", status_code=202, response_model=None, responses=docs.JOB_ACCEPTED)
async def trigger_schedule(
    request: Request, schedule_id: ScheduleId, caller: Scheduler, body: Nothing | None = None
) -> Response:
    """Submits its job now, whatever else of it runs, also while it is paused."""
    schedules, services = _schedules(caller), caller.services

    async def act() -> Response:
        services.guard.require()
        row = await schedules.trigger(await schedules.get(caller.tenant, schedule_id))
        job = await Launcher(schedules, services.store, services.agents).submit(schedule_id, row.slot)
        if job is None:
            (refused,) = await schedules.rows(schedule_id, [row.slot])
            raise ConflictError(f"its job cannot be submitted: {refused and refused.reason}", code="not_submitted")
        return job_response(job, 202)

    return await once(request, caller, act)


@router.get("/schedules/{schedule_id}/runs", response_model=None, responses=docs.SLOTS)
async def get_runs(schedule_id: ScheduleId, caller: Reader, limit: Limit = 50, after: After = None) -> Response:
    """Every slot that was due, and what became of it, the newest first."""
    schedule = await _schedules(caller).get(caller.tenant, schedule_id)
    found, cursor = await list_slots(caller.services.link, schedule, limit=limit, after=after)
    return json_response(page([row.to_json() for row in found], cursor))


def _schedules(caller: Caller) -> Schedules:
    return Schedules(caller.services.link)


async def _shown(caller: Caller, schedule: Schedule, status: int = 200) -> Response:
    headers = {"Location": f"/v1/schedules/{schedule.id}"} if status == 201 else {}
    return json_response(schedule.to_json(await _schedules(caller).now()), status, headers)


async def _checked(caller: Caller, spec: ScheduleSpec) -> ScheduleSpec:
    await _check_job(caller, spec.job)
    _check_end(spec.ends_at, await _schedules(caller).now())
    return spec.checked()


async def _check_job(caller: Caller, job: Json) -> None:
    """Raises InvalidError for a job that could not be submitted now."""
    await caller.services.intake.prepare(caller.tenant, Submission(**job))


def _check_end(ends_at: int | None, now: int) -> None:
    if ends_at is not None and ends_at <= now:
        raise FieldsError([{"field": "ends_at", "message": "lies in the past"}])
