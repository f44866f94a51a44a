"""What a tenant may take at once: requests in a minute, and running jobs."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api import docs
from api.auth import Admin
from api.body import StrictRoute
from api.errors import RefusedError
from api.responses import json_response, page
from api.tenants import LimitsIn, Tenant
from jobs.limits import TENANT

router = APIRouter(tags=["tenants"], route_class=StrictRoute)


@router.put("/limits", response_model=None, responses=docs.LIMITS)
async def put_limits(body: LimitsIn, caller: Admin) -> Response:
    """Sets or lifts limits of a scope: a tenant's own by the bootstrap key alone. Those that hold now are answered."""
    tenant, services = caller.tenant_named(body.tenant), caller.services
    if body.scope == TENANT and not caller.operates:
        raise RefusedError(403, "operators_limit", "a tenant's limits are set with the bootstrap key alone")
    caller.changes(body.scope)
    if body.running is not None and body.scope.startswith("agent:"):
        await services.agents.get(body.scope.removeprefix("agent:"))  # a misspelt one would limit nothing
    return json_response((await services.limits.put(tenant, body.scope, body.changes())).to_json())


@router.get("/limits", response_model=None, responses=docs.ALL_LIMITS)
async def get_limits(caller: Admin, tenant: Tenant = None) -> Response:
    """The limits of the tenant as a whole, and of each of its agents that has some."""
    found = await caller.services.limits.all(caller.tenant_named(tenant))
    return json_response(page([limits.to_json() for limits in found]))
