"""Who makes a request, and whether the key has the scope that the endpoint needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from api.deps import Services
from api.errors import RefusedError
from jobs.keyring import BOOTSTRAP, Principal, Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, and what an endpoint serves it with. One dependency: each costs every request its time."""

    key: Principal
    services: Services

    @property
    def tenant(self) -> str:
        return self.key.tenant

    def require(self, scope: Scope) -> None:
        """Raises RefusedError: 403 when the key lacks the scope."""
        if not self.key.may(scope):
            raise RefusedError(403, "missing_scope", f"the API key lacks the scope {scope}")

    def tenant_named(self, named: str | None) -> str:
        """The tenant that a request names, the key's own for None. Raises RefusedError: 403 when the key may not."""
        if named is None or named == self.tenant:
            return self.tenant
        if self.key.key_id != BOOTSTRAP:
            raise RefusedError(403, "foreign_tenant", "only the bootstrap key may name another tenant")
        return named


class Authorized(SecurityBase):
    """The dependency of an endpoint on a scope. Raises RefusedError: 401 without a valid key, 403 without the scope."""

    def __init__(self, scope: Scope) -> None:
        self.model = HTTPBearer(bearerFormat="ns_…", description="An API key: `Authorization: Bearer ns_…`")
        self.scheme_name = "api_key"
        self.scope = scope

    async def __call__(self, request: Request) -> Caller:
        caller = await caller_of(request)
        caller.require(self.scope)
        return caller


async def caller_of(request: Request) -> Caller:
    """Whose API key the request carries. Raises RefusedError: 401 without a valid one."""
    services: Services = request.app.state.services
    secret = bearer(request)
    principal = await services.keyring.authenticate(secret) if secret else None
    if principal is None:
        detail = "the API key is not valid" if secret else "send an API key as Authorization: Bearer ns_…"
        raise RefusedError(401, "unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="nightshift"'})
    return Caller(principal, services)


def bearer(request: Request) -> str:
    """The secret of the Authorization header, or ''."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


Reader = Annotated[Caller, Depends(Authorized("jobs:read"))]
Writer = Annotated[Caller, Depends(Authorized("jobs:write"))]
Approver = Annotated[Caller, Depends(Authorized("approvals:write"))]
Scheduler = Annotated[Caller, Depends(Authorized("schedules:write"))]
WebhookWriter = Annotated[Caller, Depends(Authorized("webhooks:write"))]
Admin = Annotated[Caller, Depends(Authorized("admin"))]
