"""What a job would cost, before it is submitted."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api import docs
from api.auth import Reader
from api.body import StrictRoute
from api.responses import json_response
from api.schemas import Submission
from api.submission import idempotency_of

router = APIRouter(tags=["jobs"], route_class=StrictRoute)


@router.post("/jobs/estimate", response_model=None, responses=docs.ESTIMATE)
async def estimate_job(request: Request, body: Submission, caller: Reader) -> Response:
    """What a submission would likely cost, what it can cost at most, and how that is known.

    It takes the body of a submission, refuses what that would refuse, and writes nothing: an Idempotency-Key is not
    used up by it. It needs `jobs:read`, for it tells what other jobs of the tenant have cost.
    """
    idempotency_of(request)
    spec, budget = await caller.services.intake.prepare(caller.tenant, body)
    estimate = await caller.services.estimator.estimate(caller.tenant, spec, budget)
    return json_response(estimate.to_json())
