"""API keys: making, listing and revoking them."""

from __future__ import annotations

import base64
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api import docs
from api.auth import Admin
from api.body import StrictRoute
from api.idempotency import derived, once, with_secret
from api.responses import json_response, page
from api.tenants import KeyIn, Tenant
from jobs.keyring import new_secret

router = APIRouter(tags=["keys"], route_class=StrictRoute)
KeyId = Annotated[str, Path(max_length=80)]


@router.post("/keys", status_code=201, response_model=None, responses=docs.KEY_MADE)
async def create_key(request: Request, body: KeyIn, caller: Admin) -> Response:
    """Makes a key. Its `secret` is shown in this answer alone."""
    tenant = caller.tenant_named(body.tenant)
    secret = _secret(request)

    async def create() -> Response:
        record, _ = await caller.services.keyring.create(tenant, body.name, body.scopes, secret)
        return json_response(record.to_json(), 201, {"Location": f"/v1/keys/{record.id}"})

    return with_secret(await once(request, caller, create), secret)


@router.get("/keys", response_model=None, responses=docs.KEYS)
async def get_keys(caller: Admin, tenant: Tenant = None) -> Response:
    """The tenant's keys, without their secrets."""
    records = await caller.services.keyring.list(caller.tenant_named(tenant))
    return json_response(page([record.to_json() for record in records]))


@router.delete("/keys/{key_id}", status_code=204, response_model=None, responses=docs.REVOKED)
async def revoke_key(key_id: KeyId, caller: Admin, tenant: Tenant = None) -> Response:
    """Ends a key; within two seconds no process accepts it."""
    await caller.services.keyring.revoke(caller.tenant_named(tenant), key_id)
    return Response(status_code=204)


def _secret(request: Request) -> str:
    known = derived(request)
    return new_secret() if known is None else f"ns_{base64.urlsafe_b64encode(known).decode().rstrip('=')}"
