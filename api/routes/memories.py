"""Long-term memory of a tenant's users."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from agent_core.types import Json
from api import docs
from api.auth import Caller, MemoryWriter, Reader
from api.body import StrictRoute
from api.forgetting import forget_user
from api.idempotency import once
from api.memories import Kind, MemoryIn, failures, opened
from api.responses import json_response, page
from api.schemas import Word
from jobs import cursors
from jobs.errors import InvalidError
from memory.errors import InvalidMemoryError, MemoryNotFoundError

if TYPE_CHECKING:
    from memory.longterm import LongTermMemory
    from memory.points import Memory, Recalled
    from memory.scope import Scope

router = APIRouter(tags=["memories"], route_class=StrictRoute)
User = Annotated[Word, Query(description="Whose memories; the tenant's own users alone.")]
MemoryId = Annotated[str, Path(max_length=80)]
OF_A_SEARCH, OF_A_LIST = ("k", "explain"), ("past", "limit", "after")


@router.post("/memories", status_code=201, response_model=None, responses=docs.MEMORY_MADE)
async def create_memory(request: Request, body: MemoryIn, caller: MemoryWriter) -> Response:
    """Remembers a text. One that is known is confirmed: 200 instead of 201. A replay answers with it as it is now."""
    made: list[Memory] = []

    async def create() -> Response:
        expires_at = None if body.expires_at is None else datetime.fromtimestamp(body.expires_at / 1000, UTC)
        given = {"kind": body.kind, "slot": body.slot, "importance": body.importance, "expires_at": expires_at}
        async with opened(caller) as memory:
            kept = await memory.remember(_scope(caller, body.user), body.text, **given)  # type: ignore[arg-type]
        made.append(kept)
        status = 201 if kept.created_at == kept.last_confirmed_at else 200
        # What is kept for replays is the id alone: a text would outlive its being forgotten.
        return json_response({"id": kept.id}, status, {"Location": f"/v1/memories/{kept.id}"})

    answer = await once(request, caller, create)
    if answer.status_code >= 300:
        return answer
    if not made:
        async with opened(caller) as memory:
            made.append(await memory.get(_scope(caller, body.user), json.loads(bytes(answer.body))["id"]))
    caller.changes(made[0].id)
    kept_headers = {
        name: answer.headers[name] for name in ("location", "idempotency-replayed") if name in answer.headers
    }
    return json_response(_shown(made[0]), answer.status_code, kept_headers)


@router.get("/memories", response_model=None, responses=docs.MEMORIES)
async def get_memories(
    request: Request,
    caller: Reader,
    user: User,
    query: Annotated[str | None, Query(min_length=1, max_length=8000, description="What to look for.")] = None,
    k: Annotated[int, Query(ge=1, le=100, description="With a query: how many at most.")] = 8,
    explain: Annotated[bool, Query(description="With a query: why each was found.")] = False,
    kind: Annotated[Kind | None, Query()] = None,
    past: Annotated[bool, Query(description="Without a query: also what was superseded or has expired.")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(max_length=200, description="The `next_cursor` of the page before.")] = None,
) -> Response:
    """A user's current memories: those that fit a `query`, the best first; without one all, the newest first."""
    unheard = [name for name in (OF_A_LIST if query is not None else OF_A_SEARCH) if name in request.query_params]
    if unheard:
        raise InvalidError(f"{unheard[0]} goes {'without' if query is not None else 'with'} a query alone")
    kinds, link = () if kind is None else (kind,), caller.services.link
    name = f"memories:{caller.tenant}:{user}"
    last = None if after is None else await cursors.read(link, name, after)
    async with opened(caller) as memory:
        scope = _scope(caller, user)
        if query is not None:
            found = await memory.recall(scope, query, k=k, kinds=kinds, explain=explain)
            return json_response(page([_found(each) for each in found]))
        listed = await memory.browse(scope, kinds=kinds, limit=limit + 1, past=past, after=last)
    more = await cursors.sign(link, name, listed[limit - 1].cursor) if len(listed) > limit else None
    return json_response(page([_shown(each) for each in listed[:limit]], more))


@router.get("/memories/{memory_id}", response_model=None, responses=docs.MEMORY)
async def get_memory(memory_id: MemoryId, caller: Reader) -> Response:
    """A memory, current or not."""
    async with opened(caller) as memory:
        return json_response(_shown(await memory.get(await _owner(memory, caller, memory_id), memory_id)))


@router.get("/memories/{memory_id}/history", response_model=None, responses=docs.MEMORY_HISTORY)
async def get_history(memory_id: MemoryId, caller: Reader) -> Response:
    """What was said in a memory's slot, or what superseded what, the oldest first."""
    async with opened(caller) as memory:
        found = await memory.history(await _owner(memory, caller, memory_id), memory_id)
    return json_response(page([_shown(each) for each in found]))


@router.delete("/memories/{memory_id}", status_code=204, response_model=None, responses=docs.MEMORY_GONE)
async def forget_memory(memory_id: MemoryId, caller: MemoryWriter) -> Response:
    """Forgets a memory for good."""
    async with opened(caller) as memory:
        await memory.forget(await _owner(memory, caller, memory_id), memory_id)
    return Response(status_code=204)


@router.delete("/memories", response_model=None, responses=docs.FORGOTTEN)
async def forget_a_user(
    caller: MemoryWriter,
    user: User,
    jobs: Annotated[bool, Query(description="Whether the user's ended jobs go too.")] = False,
) -> Response:
    """Forgets a user: memories, sessions, and with `jobs` what their ended jobs were told and said."""
    caller.changes(f"user:{user}")
    with failures():
        found = await forget_user(caller.services, caller.tenant, user, with_jobs=jobs)
    return json_response(found.to_json())


def _scope(caller: Caller, user: str) -> Scope:
    from memory.scope import Scope  # imports what memory has imported by now

    return Scope(caller.tenant, user)


async def _owner(memory: LongTermMemory, caller: Caller, memory_id: str) -> Scope:
    """Whose memory it is. What is no id is answered as one that nobody has."""
    try:
        return await memory.scope_of(caller.tenant, memory_id)
    except InvalidMemoryError:
        raise MemoryNotFoundError(memory_id) from None


def _shown(memory: Memory) -> Json:
    return {"id": memory.id, "object": "memory", **memory.to_json()}


def _found(recalled: Recalled) -> Json:
    why = {} if recalled.why is None else {"why": asdict(recalled.why)}
    return {**_shown(recalled.memory), "score": recalled.score, **why}
