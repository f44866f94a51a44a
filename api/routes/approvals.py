"""Calls that wait for a person, and what becomes of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api import docs
from api.auth import Approver, Reader
from api.body import StrictRoute
from api.idempotency import once
from api.responses import json_response, page
from api.schemas import ListedApproval, RulingIn
from jobs.listing import list_approvals
from jobs.rulings import Ruling, decide

router = APIRouter(tags=["approvals"], route_class=StrictRoute)
ApprovalId = Annotated[str, Path(max_length=80, examples=["appr_018c2f0a1b2c3d4e5f60718293a4b5c6"])]


@router.get("/approvals", response_model=None, responses=docs.APPROVALS)
async def get_approvals(
    caller: Reader,
    status: ListedApproval | None = None,
    job_id: Annotated[str | None, Query(max_length=80)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(max_length=200, description="The `next_cursor` of the page before.")] = None,
) -> Response:
    """What jobs ask of people, the newest first."""
    link = caller.services.link
    found, cursor = await list_approvals(link, caller.tenant, status=status, job_id=job_id, limit=limit, after=after)
    return json_response(page([approval.to_json() for approval in found], cursor))


@router.get("/approvals/{approval_id}", response_model=None, responses=docs.APPROVAL)
async def get_approval(approval_id: ApprovalId, caller: Reader) -> Response:
    """What a job asks about one call, and what was decided."""
    return json_response((await caller.services.store.approvals.get(caller.tenant, approval_id)).to_json())


@router.post("/approvals/{approval_id}/decide", response_model=None, responses=docs.APPROVAL)
async def decide_approval(request: Request, approval_id: ApprovalId, caller: Approver, body: RulingIn) -> Response:
    """Decides, once. When nothing else is open, the job goes on."""
    ruling = Ruling(**body.model_dump())

    async def act() -> Response:
        found = await decide(caller.services.store, caller.tenant, approval_id, ruling, caller.key.key_id)
        return json_response(found.to_json())

    return await once(request, caller, act)
