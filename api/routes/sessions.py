"""Looking at a session: the conversation that its jobs share."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from agent_core.types import Json
from api import docs
from api.auth import Reader
from api.query import KnownQueryRoute
from api.responses import json_response, page
from jobs.errors import NotFoundError
from jobs.link import milliseconds
from jobs.records import rfc3339
from memory.session import Conversation, SessionMemory, SessionScope

router = APIRouter(tags=["sessions"], route_class=KnownQueryRoute)
MOST_OFFSET = 2**53


@router.get("/sessions/{session_id:path}", response_model=None, responses=docs.SESSION)
async def get_session(
    session_id: Annotated[str, Path(max_length=128)],
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[int, Query(ge=-1, le=MOST_OFFSET, description="The `next_cursor` of the page before.")] = -1,
) -> Response:
    """What the session's jobs said, the oldest message first. Looking at a session does not keep it alive."""
    scope = SessionScope(caller.tenant, session_id)
    found = await SessionMemory(caller.services.link).look(scope, after + 1, limit)
    if not found.length:
        raise NotFoundError("there is no such session", code="session_not_found")
    more = str(found.end - 1) if found.end < found.length else None
    return json_response(
        {
            "id": session_id,
            "object": "session",
            "length": found.length,
            "generation": found.generation,
            "expires_at": rfc3339(milliseconds() + found.kept_ms),
            **page([_shown(found, number) for number in range(len(found.messages))], more),
        }
    )


def _shown(found: Conversation, number: int) -> Json:
    offset = found.start + number
    return {"offset": offset, "is_summary": found.generation > 0 and offset == found.base, **found.messages[number]}
