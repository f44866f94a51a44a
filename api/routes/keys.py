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
from jobs.errors import ForbiddenError, InvalidError
from jobs.keyring import Principal, new_secret
from jobs.link import milliseconds
from jobs.records import rfc3339

router = APIRouter(tags=["keys"], route_class=StrictRoute)
KeyId = Annotated[str, Path(max_length=80)]


@router.post("/keys", status_code=201, response_model=None, responses=docs.KEY_MADE)
async def create_key(request: Request, body: KeyIn, caller: Admin) -> Response:
    """Makes a key. Its `secret` is shown in this answer alone."""
    tenant = caller.tenant_named(body.tenant)
    secret = _secret(request)

    async def create() -> Response:
        _check_expiry(body.expires_at, caller.key)
        record, _ = await caller.services.keyring.create(tenant, body.name, body.scopes, secret, body.expires_at)
        return json_response(record.to_json(), 201, {"Location": f"/v1/keys/{record.id}"})

    return with_secret(await once(request, caller, create), secret)


@router.get("/keys", response_model=None, responses=docs.KEYS)
async def get_keys(caller: Admin, tenant: Tenant = None) -> Response:
    """The tenant's keys, without their secrets."""
    records = await caller.services.keyring.list(caller.tenant_named(tenant))
    return json_response(page([record.to_json() for record in records]))


@router.delete("/keys/{key_id}", status_code=204, response_model=None, responses=docs.REVOKED)
async def revoke_key(key_id: KeyId, caller: Admin, tenant: Tenant = None) -> Response:
    """Ends a key, and the streams of events that were opened with it."""
    await caller.services.keyring.revoke(caller.tenant_named(tenant), key_id)
    return Response(status_code=204)


def _check_expiry(expires_ms: int | None, maker: Principal) -> None:
    if expires_ms is not None and expires_ms <= milliseconds():
        raise InvalidError("expires_at: the time is over already")
    if maker.expires_ms is not None and (expires_ms is None or expires_ms > maker.expires_ms):
        latest = rfc3339(maker.expires_ms)
        raise ForbiddenError(f"expires_at: your own key expires at {latest}, and makes none that lives longer")


def _secret(request: Request) -> str:
    known = derived(request)
    return new_secret() if known is None else f"ns_{base64.urlsafe_b64encode(known).decode().rstrip('=')}"
