"""API keys: who may call, for which tenant, and for what. Only the SHA-256 of a secret is kept."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from agent_core.types import Json
from jobs import keys
from jobs.errors import NotFoundError
from jobs.link import RedisLink, milliseconds
from jobs.records import new_id, rfc3339

Scope = Literal[
    "jobs:read", "jobs:write", "approvals:write", "schedules:write", "webhooks:write", "memories:write", "admin"
]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_TENANT = "default"
BOOTSTRAP = "key_bootstrap"
"""The id of the key that the settings name. It alone may make keys for other tenants."""
REMEMBERED_SECONDS = 1.5
"""How long a process trusts a key that it has looked up, and so how long a revoked one may still pass."""
MOST_REMEMBERED = 10_000
LONGEST_SECRET = 200


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request."""

    tenant: str
    scopes: frozenset[str]
    key_id: str

    def may(self, scope: str) -> bool:
        """Whether the key has a scope; `admin` implies every other."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key without its secret. `hint` is how the secret begins."""

    id: str
    tenant: str
    name: str
    scopes: list[str]
    hint: str
    created_ms: int

    def to_json(self) -> Json:
        return {
            "id": self.id,
            "tenant": self.tenant,
            "name": self.name,
            "scopes": self.scopes,
            "hint": self.hint,
            "created_at": rfc3339(self.created_ms),
        }


def new_secret() -> str:
    """A fresh secret of 256 random bits."""
    return f"ns_{secrets.token_urlsafe(32)}"


class Keyring:
    """The keys in Redis and the bootstrap key of the settings. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink, admin_secret: str | None = None) -> None:
        self._link = link
        self._admin = _digest(admin_secret) if admin_secret else None
        self._remembered: dict[str, tuple[float, Principal]] = {}

    async def create(
        self, tenant: str, name: str, scopes: Iterable[Scope], secret: str | None = None
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret, which is shown this once."""
        secret = secret or new_secret()
        digest = _digest(secret)
        record = KeyRecord(new_id("key"), tenant, name, sorted(set(scopes)), secret[:7], milliseconds())
        # the index first: a key that works and is not listed could not be revoked
        await self._link.command("HSET", keys.api_keys(tenant), record.id, digest)
        await self._link.command(
            "HSET", keys.api_key(digest),
            "id", record.id,
            "tenant", tenant,
            "name", name,
            "scopes", json.dumps(record.scopes),
            "hint", record.hint,
            "created_ms", record.created_ms,
        )  # fmt: skip
        return record, secret

    async def list(self, tenant: str) -> list[KeyRecord]:
        """The keys of a tenant, the oldest first."""
        index = _pairs(await self._link.command("HGETALL", keys.api_keys(tenant)))
        raws = [_pairs(await self._link.command("HGETALL", keys.api_key(digest))) for digest in index.values()]
        return sorted((_record(raw) for raw in raws if raw), key=lambda record: record.id)

    async def revoke(self, tenant: str, key_id: str) -> None:
        """Ends a key, here at once and in other processes within two seconds. Raises NotFoundError."""
        digest = await self._link.command("HGET", keys.api_keys(tenant), key_id)
        if digest is None:
            raise NotFoundError(f"there is no key {key_id[:80]!r}", code="key_not_found")
        await self._link.command("DEL", keys.api_key(digest.decode()))
        await self._link.command("HDEL", keys.api_keys(tenant), key_id)
        self._remembered.pop(digest.decode(), None)

    async def authenticate(self, secret: str) -> Principal | None:
        """Whose secret it is, or None."""
        if len(secret) > LONGEST_SECRET:
            return None
        digest = _digest(secret)
        if self._admin is not None and hmac.compare_digest(digest, self._admin):
            return Principal(DEFAULT_TENANT, frozenset({"admin"}), BOOTSTRAP)
        known = self._remembered.get(digest)
        now = time.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        raw = _pairs(await self._link.command("HGETALL", keys.api_key(digest)))
        if not raw:
            return None
        record = _record(raw)
        principal = Principal(record.tenant, frozenset(record.scopes), record.id)
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = (now + REMEMBERED_SECONDS, principal)
        return principal


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _pairs(raw: Any) -> dict[str, str]:
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    return {name.decode(): value.decode() for name, value in pairs}


def _record(raw: Mapping[str, str]) -> KeyRecord:
    return KeyRecord(
        raw["id"], raw["tenant"], raw["name"], json.loads(raw["scopes"]), raw["hint"], int(raw["created_ms"])
    )
