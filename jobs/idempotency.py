"""First answers to idempotency keys, kept for a day beside those that `submit.lua` writes for jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from jobs import keys
from jobs.errors import ConflictError, IdempotencyError
from jobs.link import RedisLink
from jobs.moves import Idempotency
from jobs.scripts import script
from jobs.store import IDEMPOTENCY_SECONDS

PENDING_SECONDS = 120
"""After this time a request that never answered is taken for dead, and its key may be used again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it was first given."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def begin(link: RedisLink, tenant: str, idempotency: Idempotency) -> Answer | None:
    """Claims a key: None when this is its first request, else the first answer.

    Raises IdempotencyError when it was used with another body, ConflictError while its first request is under way.
    """
    key = keys.idempotency(tenant, idempotency.digest)
    verdict, *answer = await link.script(script("idempotency"), [key], [idempotency.fingerprint, PENDING_SECONDS])
    match verdict:
        case b"first":
            return None
        case b"answered":
            status, headers, body = answer
            return Answer(int(status), json.loads(headers), body)
        case b"pending":
            raise ConflictError(
                "the first request with this Idempotency-Key is still under way", code="idempotency_in_progress"
            )
        case _:
            raise IdempotencyError(
                "this Idempotency-Key was used before with another body; use a fresh key for another request"
            )


async def keep(link: RedisLink, tenant: str, idempotency: Idempotency, answer: Answer) -> None:
    """Keeps the first answer for a day."""
    key = keys.idempotency(tenant, idempotency.digest)
    headers = json.dumps(dict(answer.headers))
    await link.command("HSET", key, "status", answer.status, "headers", headers, "body", answer.body)
    await link.command("EXPIRE", key, IDEMPOTENCY_SECONDS)


async def abandon(link: RedisLink, tenant: str, idempotency: Idempotency) -> None:
    """Frees a key whose request came to nothing."""
    await link.command("DEL", keys.idempotency(tenant, idempotency.digest))
