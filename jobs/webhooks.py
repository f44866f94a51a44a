"""Webhook endpoints: where a tenant wants to be told of events, and the secrets that sign what is sent there.

The webhooks that submissions name have no endpoint of their own. A tenant's endpoint `jobs` stands for all of them: it
has their deliveries and their secret, and can be neither changed nor removed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent_core.types import Json
from jobs import keys, outbox
from jobs.errors import ConflictError, InvalidError, NotFoundError
from jobs.link import Arg, RedisLink, milliseconds
from jobs.records import new_id, rfc3339
from jobs.scripts import script
from jobs.signing import new_secret

JOBS = "jobs"
"""The id of the endpoint that stands for the webhooks of jobs."""
MOST_ENDPOINTS = 50
"""Endpoints of one tenant: each costs every event of the tenant a little."""
OVERLAP_SECONDS = 24 * 3600
"""How long the secret before the newest one goes on signing."""
Disabled = Literal["gone", "failing", "by_request"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint at one moment. `events` None is all of `outbox.ROUTINE`; `failing_ms` is since when all failed."""

    id: str
    tenant: str
    url: str | None
    events: list[str] | None = None
    description: str | None = None
    enabled: bool = True
    created_ms: int | None = None
    disabled_ms: int | None = None
    disabled_reason: Disabled | None = None
    failing_ms: int | None = None

    @property
    def owner(self) -> str:
        """Whose its deliveries and secrets are, in Redis's words."""
        return owner_of_jobs(self.tenant) if self.id == JOBS else self.id

    def to_json(self) -> Json:
        """The endpoint as the API shows it."""
        return {
            "id": self.id,
            "object": "webhook_endpoint",
            "url": self.url,
            "events": self.events,
            "description": self.description,
            "enabled": self.enabled,
            "created_at": rfc3339(self.created_ms),
            "disabled_at": rfc3339(self.disabled_ms),
            "disabled_reason": self.disabled_reason,
            "failing_since": rfc3339(self.failing_ms),
        }


def owner_of_jobs(tenant: str) -> str:
    """Whose the deliveries and secrets are of the webhooks of a tenant's jobs."""
    return f"{JOBS}:{tenant}"


def disabled(endpoint: Endpoint) -> ConflictError:
    """What is raised when something is to be sent to an endpoint that is disabled."""
    return ConflictError(f"webhook endpoint {endpoint.id} is disabled; enable it first", code="endpoint_disabled")


class Webhooks:
    """The endpoints in Redis. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def create(
        self, tenant: str, url: str, events: list[str] | None, description: str | None, secret: str
    ) -> Endpoint:
        """Makes an endpoint. Raises ConflictError when the tenant has as many as it may."""
        endpoint_id = new_id("whk")
        fields = {"tenant": tenant, "url": url, "events": json.dumps(events), "description": description or ""}
        if not await self._write(endpoint_id, tenant, _told(events), {**fields, "enabled": 1}, secret=secret):
            text = f"the tenant has {MOST_ENDPOINTS} webhook endpoints, and may have no more; remove one"
            raise ConflictError(text, code="too_many_endpoints")
        return await self.get(tenant, endpoint_id)

    async def get(self, tenant: str, endpoint_id: str) -> Endpoint:
        """An endpoint. Raises NotFoundError."""
        if endpoint_id == JOBS:
            return Endpoint(JOBS, tenant, None)
        found = await self.find(endpoint_id)
        if found is None or found.tenant != tenant:
            raise NotFoundError(f"there is no webhook endpoint {endpoint_id[:80]!r}", code="endpoint_not_found")
        return found

    async def find(self, endpoint_id: str) -> Endpoint | None:
        """An endpoint of whatever tenant, for the platform's own processes."""
        return _parse(endpoint_id, texts(await self._link.command("HGETALL", keys.endpoint(endpoint_id))))

    async def all(self, tenant: str) -> list[Endpoint]:
        """A tenant's endpoints, the oldest first, without `jobs`."""
        ids = [one.decode() for one in await self._link.command("ZRANGE", keys.endpoints(tenant), 0, -1)]
        found = await asyncio.gather(*map(self.find, ids))
        return [endpoint for endpoint in found if endpoint is not None]

    async def change(self, tenant: str, endpoint_id: str, changes: Mapping[str, Any]) -> Endpoint:
        """Changes those of `url`, `events`, `description` and `enabled` that are given.

        Raises NotFoundError, InvalidError.
        """
        before = await self.get(tenant, own(endpoint_id))
        events = changes.get("events", before.events)
        fields: dict[str, Arg] = {"events": json.dumps(events)}
        fields |= {name: changes[name] or "" for name in ("url", "description") if name in changes}
        enabled = changes.get("enabled")
        if enabled is not None:
            fields["enabled"] = int(enabled)
        if enabled is False and before.enabled:
            fields |= {"disabled_ms": milliseconds(), "disabled_reason": "by_request"}
        await self._write(endpoint_id, tenant, _told(events), fields, afresh=bool(enabled))
        return await self.get(tenant, endpoint_id)

    async def remove(self, tenant: str, endpoint_id: str) -> None:
        """Removes an endpoint; what is still to be delivered to it is dropped. Raises NotFoundError, InvalidError."""
        await self.get(tenant, own(endpoint_id))
        await asyncio.gather(
            self._link.command("HDEL", keys.listeners(tenant), endpoint_id),
            self._link.command("DEL", keys.endpoint(endpoint_id), keys.webhook_secrets(endpoint_id)),
            self._link.command("ZREM", keys.endpoints(tenant), endpoint_id),
        )

    async def rotate(self, endpoint: Endpoint, secret: str, overlap_seconds: int = OVERLAP_SECONDS) -> None:
        """Gives an endpoint a new secret; those before it sign beside it for so long."""
        await self._secrets(endpoint.owner, secret, overlap_seconds * 1000)

    async def signing(self, owner: str) -> list[str]:
        """The secrets that sign at the moment, the newest first. There is always one."""
        return await self._secrets(owner, new_secret(), 0, only_if_none=True)

    async def _secrets(self, owner: str, secret: str, overlap_ms: int, *, only_if_none: bool = False) -> list[str]:
        args: list[Arg] = [secret, overlap_ms, int(only_if_none)]
        found = await self._link.script(script("rotate_secret"), [keys.webhook_secrets(owner)], args)
        return [one.decode() for one in found]

    async def _write(
        self,
        endpoint_id: str,
        tenant: str,
        told: str,
        fields: Mapping[str, Arg],
        *,
        secret: str = "",
        afresh: bool = False,
    ) -> bool:
        pairs = [word for pair in fields.items() for word in pair]
        written = await self._link.script(
            script("write_endpoint"),
            [
                keys.endpoint(endpoint_id),
                keys.endpoints(tenant),
                keys.listeners(tenant),
                keys.webhook_secrets(endpoint_id),
            ],
            [endpoint_id, secret, MOST_ENDPOINTS, told, int(afresh), *pairs],
        )
        return bool(written)


def own(endpoint_id: str) -> str:
    """The id, when it is not the one that stands for the webhooks of jobs. Raises InvalidError."""
    if endpoint_id == JOBS:
        text = "the endpoint `jobs` stands for the webhooks that submissions name: only its secret can be changed"
        raise InvalidError(text, code="endpoint_of_jobs")
    return endpoint_id


def texts(raw: Any) -> dict[str, str]:
    """A hash as Redis answers it."""
    words: Sequence[bytes] = raw if not isinstance(raw, dict) else [word for pair in raw.items() for word in pair]
    return {name.decode(): value.decode() for name, value in zip(words[::2], words[1::2], strict=True)}


def _told(events: list[str] | None) -> str:
    return outbox.wanted(events, outbox.DISABLED)


def _parse(endpoint_id: str, raw: Mapping[str, str]) -> Endpoint | None:
    if not raw:
        return None

    def ms(name: str) -> int | None:
        return int(float(raw[name])) if raw.get(name) else None

    return Endpoint(
        endpoint_id,
        raw["tenant"],
        raw["url"],
        json.loads(raw["events"]),
        raw["description"] if raw.get("description") else None,
        raw["enabled"] == "1",
        ms("created_ms"),
        ms("disabled_ms"),
        raw.get("disabled_reason"),  # type: ignore[arg-type]
        ms("failing_ms"),
    )
