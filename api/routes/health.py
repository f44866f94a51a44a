"""Whether the process lives, whether it would take a job, and its metrics."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Response

from api import docs
from api.deps import Deps
from api.metrics import CONTENT_TYPE, render
from api.responses import json_response
from jobs.errors import NotFoundError
from jobs.kill_switch import GLOBAL

router = APIRouter(tags=["operation"])


@router.get("/healthz", response_model=None, responses=docs.HEALTH)
async def healthz() -> Response:
    """The process is alive."""
    return json_response({"status": "ok"})


@router.get("/readyz", response_model=None, responses=docs.READY)
async def readyz(deps: Deps) -> Response:
    """200 when a submission would be accepted at this moment, else 503 with what is missing."""
    fault = await deps.guard.check()
    if fault is not None:
        raise fault
    if (switch := await deps.kill_switches.get(GLOBAL)) is not None:
        raise replace(switch, reason="").refusal()  # whoever asks here has shown no key
    return json_response({"status": "ready"})


@router.get("/metrics", response_model=None, responses=docs.METRICS)
async def metrics(deps: Deps) -> Response:
    """The fleet's metrics in Prometheus's text format; needs no key, and has its own switch."""
    if not deps.settings.metrics:
        raise NotFoundError("metrics are switched off (NIGHTSHIFT_METRICS)", code="metrics_off")
    return Response(await render(deps.link, deps.store.tickets), media_type=CONTENT_TYPE)
