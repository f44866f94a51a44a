"""One answer for each Idempotency-Key, for the requests whose effect is not one write of the job store."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable

from fastapi import Request, Response

from api.auth import Caller, bearer
from api.errors import problem_response, request_id_of, status_of
from api.responses import REPLAYED, json_response
from api.submission import fingerprinted, idempotency_of
from jobs import idempotency
from jobs.errors import JobsError

Handler = Callable[[], Awaitable[Response]]


async def once(
    request: Request,
    caller: Caller,
    handler: Handler,
    what: object = None,
    is_final: Callable[[], bool] = lambda: True,
) -> Response:
    """The handler's answer, or the one that it gave when the request's Idempotency-Key first came.

    `what` stands for the body where that is no JSON. An answer that asks for another try is not kept: 503, or one that
    is not final. Raises IdempotencyError for another body, ConflictError while the first request is under way.
    """
    given = idempotency_of(request)
    if given is None:
        return await handler()
    body = await request.json() if what is None else what
    link, marked = caller.services.link, fingerprinted(request, given, body)
    first = await idempotency.begin(link, caller.tenant, marked)
    if first is not None:
        return Response(first.body, first.status, {**first.headers, **REPLAYED})
    try:
        answer = await _answer(request, handler)
    except BaseException:
        await idempotency.abandon(link, caller.tenant, marked)
        raise
    if not is_final():
        await idempotency.abandon(link, caller.tenant, marked)
        return answer
    headers = {name: answer.headers[name] for name in ("content-type", "location") if name in answer.headers}
    first = idempotency.Answer(answer.status_code, headers, bytes(answer.body))
    await idempotency.keep(link, caller.tenant, marked, first)
    return answer


def derived(request: Request) -> bytes | None:
    """32 bytes that a request with an Idempotency-Key has each time it comes, and that only the holder of its API key
    can make; None without one. A secret that is shown once is made of them, so that it need not be kept for replays.
    """
    given = idempotency_of(request)
    if given is None:
        return None
    text = f"{request.method} {request.url.path}\n{given}"
    return hmac.digest(bearer(request).encode(), text.encode(), hashlib.sha256)


def with_secret(answer: Response, secret: str) -> Response:
    """The answer with a secret in it, unless it is a refusal; the one that is kept for replays is without it."""
    if answer.status_code >= 300:
        return answer
    shown = {**json.loads(bytes(answer.body)), "secret": secret}
    kept = {name: answer.headers[name] for name in ("location", "idempotency-replayed") if name in answer.headers}
    return json_response(shown, answer.status_code, kept)


async def _answer(request: Request, handler: Handler) -> Response:
    try:
        return await handler()
    except JobsError as exc:
        if status_of(exc) >= 500:
            raise
        return problem_response(exc, request_id_of(request))
