"""Notes in the audit log what requests change, and what they tried to, once it is known how they are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from redis.exceptions import RedisError
from starlette.datastructures import Headers
from starlette.types import Message, Scope

from api.errors import status_of
from jobs.audit_log import AuditLog, Entry
from jobs.errors import UnavailableError
from jobs.keyring import Principal

log = structlog.get_logger(__name__)

READING = frozenset({"GET", "HEAD", "OPTIONS"})
NOTHING_DONE = 503
"""The platform could not, and said so: that is no attempt of the client's that anybody has to know of."""


@dataclass(slots=True)
class Change:
    """What a request is about to change. `tenant` is whose, and `key` the id of the key, once they are known; `target`
    is what it is about where no path names it.
    """

    tenant: str | None = None
    key: str | None = None
    target: str | None = None


async def note_answer(scope: Scope, message: Message) -> None:
    """Notes the change of a request that is about to be answered, if it is one."""
    change: Change | None = scope["state"].get("change")
    if change is None:
        return
    headers = Headers(raw=list(message["headers"]))
    named = list(scope["path_params"].values())
    target = change.target or (named[-1] if named else headers.get("location", "").rpartition("/")[2])
    await _note(scope, change, scope["endpoint"].__name__, target, message["status"])


@asynccontextmanager
async def noted(scope: Scope, key: Principal, action: str, target: str | None = None) -> AsyncIterator[Change]:
    """Notes a change that is made inside, where HTTP's own answer says nothing of it, or is given before. What it is
    about may be set when it is known.
    """
    change = Change(key.tenant, key.key_id, target)
    try:
        yield change
    except Exception as exc:
        await _note(scope, change, action, change.target, status_of(exc))
        raise
    await _note(scope, change, action, change.target, 200)


async def _note(scope: Scope, change: Change, action: str, target: str | None, status: int) -> None:
    if status == NOTHING_DONE:
        return
    audit_log: AuditLog = scope["app"].state.services.audit_log
    address = scope["client"][0] if scope.get("client") else None
    request_id = scope["state"]["request_id"]
    entry = Entry(change.key, action, scope["method"], scope["path"], target, status, request_id, address)
    try:
        await audit_log.append(change.tenant, entry)
    except (UnavailableError, RedisError) as exc:  # it is done, and the answer has to say so
        log.error("not in the audit log", tenant=change.tenant, action=action, request_id=request_id, error=str(exc))
