"""Who makes a request, and whether the key has the scope that the endpoint needs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from api.audit import READING, Change
from api.deps import Services
from api.errors import RefusedError
from jobs.errors import UnavailableError
from jobs.keyring import BOOTSTRAP, Principal, Scope
from jobs.records import rfc3339

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="nightshift"'}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, and what an endpoint serves it with. One dependency: each costs every request its time."""

    key: Principal
    services: Services
    secret: str = field(repr=False)
    change: Change | None

    @property
    def tenant(self) -> str:
        return self.key.tenant

    async def still_valid(self) -> bool:
        """Whether the key is neither revoked nor expired by now. While Redis is away it is taken for valid."""
        with suppress(UnavailableError):
            key = await self.services.keyring.authenticate(self.secret)
            return key is not None and not key.expired
        return True

    def require(self, scope: Scope) -> None:
        """Raises RefusedError: 403 when the key lacks the scope."""
        if not self.key.may(scope):
            raise RefusedError(403, "missing_scope", f"the API key lacks the scope {scope}")

    def changes(self, target: str) -> None:
        """Tells the audit log what a change is about, where no path names it."""
        if self.change is not None:
            self.change.target = target

    @property
    def operates(self) -> bool:
        """Whether the key is the operator's, which the settings name."""
        return self.key.key_id == BOOTSTRAP

    def tenant_named(self, named: str | None) -> str:
        """The tenant that a request names, the key's own for None. Raises RefusedError: 403 when the key may not."""
        if named is None or named == self.tenant:
            return self.tenant
        if not self.operates:
            raise RefusedError(403, "foreign_tenant", "only the bootstrap key may name another tenant")
        if self.change is not None:
            self.change.tenant = named
        return named


class Authorized(SecurityBase):
    """The dependency of an endpoint on a scope. Raises RefusedError: 401 without a valid key, 403 without the scope."""

    def __init__(self, scope: Scope) -> None:
        self.model = HTTPBearer(bearerFormat="ns_…", description="An API key: `Authorization: Bearer ns_…`")
        self.scheme_name = "api_key"
        self.scope = scope

    async def __call__(self, request: Request) -> Caller:
        caller = await caller_of(request, self.scope)
        caller.require(self.scope)
        return caller


async def caller_of(request: Request, scope: Scope | None = None) -> Caller:
    """Whose API key the request carries. Raises RefusedError: 401 without a valid one, 429 when it is one too many."""
    services: Services = request.app.state.services
    change = Change() if scope not in (None, "jobs:read") and request.method not in READING else None
    request.scope["state"]["change"] = change
    secret = bearer(request)
    key = await services.keyring.authenticate(secret) if secret else None
    if key is None:
        detail = "the API key is not valid" if secret else "send an API key as Authorization: Bearer ns_…"
        raise RefusedError(401, "unauthorized", detail, CHALLENGE)
    if change is not None:
        change.tenant, change.key = key.tenant, key.key_id
    if key.expired:
        raise RefusedError(401, "key_expired", f"the API key expired at {rfc3339(key.expires_ms)}", CHALLENGE)
    services.keyring.note_use(key)
    # an admin's requests for what only admins may do are not counted: who is to end a flood has to get in
    await _count(request, services, key.tenant, 0 if scope == "admin" and key.may(scope) else 1)
    return Caller(key, services, secret, change)


async def _count(request: Request, services: Services, tenant: str, tokens: int) -> None:
    """Counts a request of a tenant, if it has a limit. Raises RefusedError."""
    standing = await services.rate.take(tenant, tokens)
    if standing is None:
        return
    request.scope["state"]["rate"] = standing
    if not standing.allowed:
        wait = standing.more_in
        detail = f"the tenant may make {standing.rate.per_minute} requests a minute; try again in {wait} s"
        raise RefusedError(429, "rate_limited", detail, {"Retry-After": str(wait)})


def bearer(request: Request) -> str:
    """The secret of the Authorization header, or ''."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


Reader = Annotated[Caller, Depends(Authorized("jobs:read"))]
Writer = Annotated[Caller, Depends(Authorized("jobs:write"))]
Approver = Annotated[Caller, Depends(Authorized("approvals:write"))]
Scheduler = Annotated[Caller, Depends(Authorized("schedules:write"))]
WebhookWriter = Annotated[Caller, Depends(Authorized("webhooks:write"))]
MemoryWriter = Annotated[Caller, Depends(Authorized("memories:write"))]
Admin = Annotated[Caller, Depends(Authorized("admin"))]
