"""The audit log of a tenant: who changed what, and who tried to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api import docs
from api.auth import Admin
from api.body import StrictRoute
from api.errors import RefusedError
from api.responses import json_response, page
from api.schemas import Time
from api.tenants import Tenant
from jobs.audit_log import Filters

router = APIRouter(tags=["tenants"], route_class=StrictRoute)
Text = Annotated[str | None, Query(max_length=136)]


@router.get("/audit", response_model=None, responses=docs.AUDIT_LOG)
async def get_audit(
    caller: Admin,
    action: Text = None,
    key_id: Text = None,
    target: Text = None,
    created_after: Annotated[Time | None, Query()] = None,
    created_before: Annotated[Time | None, Query()] = None,
    tenant: Tenant = None,
    without_key: Annotated[bool, Query(description="Attempts of nobody we know; for the bootstrap key alone.")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(max_length=200, description="The `next_cursor` of the page before.")] = None,
) -> Response:
    """What was changed by the API, and what was tried, the newest first. Nothing in the API changes an entry."""
    if without_key and not caller.operates:
        raise RefusedError(403, "foreign_tenant", "only the bootstrap key may see attempts without a valid key")
    whose = None if without_key else caller.tenant_named(tenant)
    filters = Filters(action, key_id, target, created_after, created_before)
    found, cursor = await caller.services.audit_log.page(whose, filters, limit=limit, after=after)
    return json_response(page(found, cursor))
