"""API keys: making, listing and revoking them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api import docs
from api.auth import Admin, Caller, bearer
from api.body import StrictRoute
from api.errors import RefusedError
from api.idempotency import once
from api.responses import json_response, page
from api.schemas import KeyIn, TenantName
from api.submission import idempotency_of
from jobs.keyring import BOOTSTRAP, new_secret

router = APIRouter(tags=["keys"], route_class=StrictRoute)
KeyId = Annotated[str, Path(max_length=80)]
Tenant = Annotated[TenantName | None, Query(description="Another tenant; for the bootstrap key alone.")]


@router.post("/keys", status_code=201, response_model=None, responses=docs.KEY_MADE)
async def create_key(request: Request, body: KeyIn, caller: Admin) -> Response:
    """Makes a key. Its `secret` is shown in this answer alone."""
    tenant = _tenant(caller, body.tenant)
    secret = _secret(request)

    async def create() -> Response:
        record, _ = await caller.services.keyring.create(tenant, body.name, body.scopes, secret)
        return json_response(record.to_json(), 201, {"Location": f"/v1/keys/{record.id}"})

    answer = await once(request, caller, create)
    if answer.status_code != 201:
        return answer
    # the secret is added last, so that the answer which is kept for replays is without it
    shown = {**json.loads(bytes(answer.body)), "secret": secret}
    kept = {name: answer.headers[name] for name in ("location", "idempotency-replayed") if name in answer.headers}
    return json_response(shown, 201, kept)


@router.get("/keys", response_model=None, responses=docs.KEYS)
async def get_keys(caller: Admin, tenant: Tenant = None) -> Response:
    """The tenant's keys, without their secrets."""
    records = await caller.services.keyring.list(_tenant(caller, tenant))
    return json_response(page([record.to_json() for record in records]))


@router.delete("/keys/{key_id}", status_code=204, response_model=None, responses=docs.REVOKED)
async def revoke_key(key_id: KeyId, caller: Admin, tenant: Tenant = None) -> Response:
    """Ends a key; within two seconds no process accepts it."""
    await caller.services.keyring.revoke(_tenant(caller, tenant), key_id)
    return Response(status_code=204)


def _tenant(caller: Caller, named: str | None) -> str:
    if named is None or named == caller.tenant:
        return caller.tenant
    if caller.key.key_id != BOOTSTRAP:
        raise RefusedError(403, "foreign_tenant", "only the bootstrap key may name another tenant")
    return named


def _secret(request: Request) -> str:
    """A new secret; with an Idempotency-Key the same one each time, which only the holder of the API key can make."""
    given = idempotency_of(request)
    if given is None:
        return new_secret()
    mac = hmac.digest(bearer(request).encode(), f"POST /v1/keys\n{given}".encode(), hashlib.sha256)
    return f"ns_{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
