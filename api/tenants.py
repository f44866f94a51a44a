"""What clients send about tenants' keys and limits, and the shapes of the answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from api.schemas import PRINTABLE, Strict, Time
from jobs.keyring import Scope

TenantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Tenant = Annotated[TenantName | None, Query(description="Another tenant; for the bootstrap key alone.")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class KeyIn(Strict):
    """A key to make. Only the bootstrap key may name another tenant. A key makes none that outlives it."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=PRINTABLE)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=10)]
    expires_at: Time | None = None
    tenant: TenantName | None = None


class KeyView(BaseModel):
    """An API key without its secret."""

    id: str
    tenant: str
    name: str
    scopes: list[str]
    hint: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None = Field(description="Right to a minute or so.")


class NewKey(KeyView):
    """An API key that was just made."""

    secret: str


class LimitsIn(Strict):
    """Limits of a tenant, or of one of its agents, which has `running` alone. What is left out stays; null lifts it.

    `running` jobs may hold a worker at once; after a silence `burst` requests may come at once, as many as in a minute
    when it is null. Only the bootstrap key may name another tenant.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"scope": "tenant", "running": 50, "requests_per_minute": 600, "burst": 100}]}
    )

    scope: Annotated[str, Field(min_length=1, max_length=70, examples=["tenant", "agent:analyst"])]
    running: Count | None = None
    requests_per_minute: Count | None = None
    burst: Count | None = None
    tenant: TenantName | None = None

    def changes(self) -> dict[str, int | None]:
        """The limits that were given."""
        return self.model_dump(exclude_unset=True, exclude={"scope", "tenant"})


class AuditEntryView(BaseModel):
    """A change by the API, or an attempt at one."""

    id: str
    created_at: str
    key_id: str | None = Field(description="The API key; null when it was not valid.")
    action: str = Field(description="The `operationId` of what was asked for.")
    method: str
    path: str
    target: str | None = Field(description="The id or the scope of what it is about, or of what it made.")
    status: int = Field(description="What was answered.")
    request_id: str
    address: str | None = Field(description="The client's, as the server saw it.")


class LimitsView(BaseModel):
    """The limits of a scope; null is no limit."""

    scope: str
    running: int | None
    requests_per_minute: int | None
    burst: int | None
