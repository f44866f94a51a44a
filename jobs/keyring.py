"""API keys: who may call, for which tenant, and for what. Only the SHA-256 of a secret is kept."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from agent_core.types import Json
from jobs import keys
from jobs.errors import NotFoundError
from jobs.link import RedisLink, milliseconds
from jobs.recent import Recent, Seldom
from jobs.records import new_id, rfc3339

Scope = Literal[
    "jobs:read", "jobs:write", "approvals:write", "schedules:write", "webhooks:write", "memories:write", "admin"
]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_TENANT = "default"
BOOTSTRAP = "key_bootstrap"
"""The id of the key that the settings name. It alone may make keys for other tenants."""
LONGEST_SECRET = 200
USE_SECONDS = 60.0
"""How often a process writes down, at most, that a key is used."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request; `expires_ms` is when the key expires, if it does."""

    tenant: str
    scopes: frozenset[str]
    key_id: str
    expires_ms: int | None = None

    @property
    def expired(self) -> bool:
        """Whether the key has expired, by the clock of this machine."""
        return self.expires_ms is not None and self.expires_ms <= milliseconds()

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
    expires_ms: int | None = None
    last_used_ms: int | None = None

    def to_json(self) -> Json:
        return {
            "id": self.id,
            "tenant": self.tenant,
            "name": self.name,
            "scopes": self.scopes,
            "hint": self.hint,
            "created_at": rfc3339(self.created_ms),
            "expires_at": rfc3339(self.expires_ms),
            "last_used_at": rfc3339(self.last_used_ms),
        }


def new_secret() -> str:
    """A fresh secret of 256 random bits."""
    return f"ns_{secrets.token_urlsafe(32)}"


class Keyring:
    """The keys in Redis and the bootstrap key of the settings. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink, admin_secret: str | None = None, recent: Recent | None = None) -> None:
        self._link = link
        self._admin = _digest(admin_secret) if admin_secret else None
        self._recent = recent or Recent()
        self._note_again = Seldom(USE_SECONDS)

    async def create(
        self,
        tenant: str,
        name: str,
        scopes: Iterable[Scope],
        secret: str | None = None,
        expires_ms: int | None = None,
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret, which is shown this once."""
        secret = secret or new_secret()
        digest = _digest(secret)
        record = KeyRecord(new_id("key"), tenant, name, sorted(set(scopes)), secret[:7], milliseconds(), expires_ms)
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
            "expires_ms", "" if expires_ms is None else expires_ms,
        )  # fmt: skip
        return record, secret

    async def list(self, tenant: str) -> list[KeyRecord]:
        """The keys of a tenant, the oldest first. When one was last used is right to a minute or so."""
        index = _pairs(await self._link.command("HGETALL", keys.api_keys(tenant)))
        raws = [_pairs(await self._link.command("HGETALL", keys.api_key(digest))) for digest in index.values()]
        records = sorted((_record(raw) for raw in raws if raw), key=lambda record: record.id)
        if not records:
            return []
        used = await self._link.command("ZMSCORE", keys.keys_used(tenant), *(record.id for record in records))
        return [replace(r, last_used_ms=None if ms is None else int(ms)) for r, ms in zip(records, used, strict=True)]

    async def revoke(self, tenant: str, key_id: str) -> None:
        """Ends a key, here at once and in other processes as soon as they hear of it. Raises NotFoundError."""
        digest = await self._link.command("HGET", keys.api_keys(tenant), key_id)
        if digest is None:
            raise NotFoundError(f"there is no key {key_id[:80]!r}", code="key_not_found")
        key = keys.api_key(digest.decode())
        await asyncio.gather(self._link.command("DEL", key), self._link.command("PUBLISH", keys.CHANGED, key))
        self._recent.forget(key)
        await self._link.command("HDEL", keys.api_keys(tenant), key_id)
        await self._link.command("ZREM", keys.keys_used(tenant), key_id)

    async def authenticate(self, secret: str) -> Principal | None:
        """Whose secret it is, expired or not, or None."""
        if len(secret) > LONGEST_SECRET:
            return None
        digest = _digest(secret)
        if self._admin is not None and hmac.compare_digest(digest, self._admin):
            return Principal(DEFAULT_TENANT, frozenset({"admin"}), BOOTSTRAP)
        key = keys.api_key(digest)
        try:
            return await self._recent.get(key, lambda: self._look_up(key))
        except NotFoundError:
            return None

    def note_use(self, principal: Principal) -> None:
        """Writes down that a key is used, if that is not known yet, without waiting for Redis."""
        if principal.key_id == BOOTSTRAP or not self._note_again.now(principal.key_id):
            return
        used = keys.keys_used(principal.tenant)
        self._link.command("ZADD", used, "GT", milliseconds(), principal.key_id).add_done_callback(_ignore)

    async def _look_up(self, key: str) -> Principal:
        raw = _pairs(await self._link.command("HGETALL", key))
        if not raw:
            raise NotFoundError("there is no such key")  # and it is not remembered, or guesses would fill the memory
        record = _record(raw)
        return Principal(record.tenant, frozenset(record.scopes), record.id, record.expires_ms)


def _ignore(written: asyncio.Future[Any]) -> None:
    """Nobody waits for it: what is lost is written the next time."""
    if not written.cancelled():
        written.exception()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _pairs(raw: Any) -> dict[str, str]:
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    return {name.decode(): value.decode() for name, value in pairs}


def _record(raw: Mapping[str, str]) -> KeyRecord:
    expires = raw.get("expires_ms")
    return KeyRecord(
        raw["id"],
        raw["tenant"],
        raw["name"],
        json.loads(raw["scopes"]),
        raw["hint"],
        int(raw["created_ms"]),
        int(expires) if expires else None,
    )
