"""A job's journal as the outside sees it: events, as pages or as a stream, and the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from agent_core.types import Json
from api import docs
from api.auth import Caller, Reader
from api.deps import Services
from api.errors import RefusedError
from api.query import KnownQueryRoute
from api.responses import dump, json_response, page
from api.routes.jobs import JobId
from jobs import keys
from jobs.errors import NotFoundError, UnavailableError
from jobs.journal import FIRST, LAST_EVENTS, Line, ledger_rows, parse_event_id
from jobs.link import milliseconds
from jobs.records import Job, rfc3339

PAGE = 200
MOST_IN_A_PAGE = 1000
AT_ONCE = 25
"""Events that a stream reads from the journal before they are sent: what it holds for a reader that is slow."""
HEARTBEAT_SECONDS = 15
ENDING_SECONDS = 5.0
"""How long a stream may take to end by itself when the server stops, before it is cut off in the middle."""
RESET = "reset"
"""Tells a client that is too slow that it missed live events; it comes back with Last-Event-ID."""
WHOLE_REPLY = frozenset({"model.completed", "model.failed"})
LINE_SEPARATORS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}
"""Characters that JSON leaves as they are and that many a client takes for the end of a line."""

router = APIRouter(tags=["jobs"], route_class=KnownQueryRoute)


@router.get("/jobs/{job_id}/events", response_model=None, responses=docs.EVENTS)
async def get_events(
    request: Request,
    job_id: JobId,
    caller: Reader,
    after: Annotated[str | None, Query(max_length=64, description="The id of the last event seen.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_IN_A_PAGE)] = PAGE,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """All that happened to the job, the oldest first: pages, or with `Accept: text/event-stream` a live stream."""
    job = await caller.services.store.get(caller.tenant, job_id)
    point = parse_event_id(last_event_id or after)
    await _check_kept(caller.services, job, point)
    if "text/event-stream" in request.headers.get("accept", ""):
        return await _stream(caller, job, point)
    lines = await caller.services.store.lines(job_id, point, limit + 1)
    shown = lines[:limit]
    cursor = f"evt_{shown[-1].id}" if len(lines) > limit else None
    return json_response(page([line.to_event(job_id) for line in shown], cursor))


@router.get("/jobs/{job_id}/ledger", response_model=None, responses=docs.LEDGER)
async def get_ledger(job_id: JobId, caller: Reader) -> Response:
    """Every money row of the job: what was reserved for each model call, and what it cost."""
    await caller.services.store.get(caller.tenant, job_id)
    return json_response(page(ledger_rows(job_id, await caller.services.store.lines(job_id))))


async def _check_kept(services: Services, job: Job, point: str) -> None:
    """Raises RefusedError when what follows a point has been trimmed away in part."""
    if point == FIRST:
        return
    first = await services.store.lines(job.id, limit=1)
    if first and (_is_origin(first[0], job) or _position(point) >= first[0].position):
        return
    if not first and job.ended and job.end_id is not None and _position(point) >= _position(job.end_id):
        return
    raise RefusedError(410, "events_trimmed", "the events after this point are no longer kept; read the job instead")


def _is_origin(line: Line, job: Job) -> bool:
    """Whether a line is the one that the submission wrote, so that nothing before it was trimmed."""
    status = job.as_submitted().status
    return line.type == "job.queued" and line.attempt == 0 and line.data.get("status") == status


async def _stream(caller: Caller, job: Job, point: str) -> Response:
    if job.ended and not await caller.services.store.lines(job.id, point, 1):
        return Response(status_code=204)  # tells an EventSource not to come again
    return EventSourceResponse(
        _events(caller, job, point),
        ping=HEARTBEAT_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="heartbeat"),
        sep="\n",
        shutdown_grace_period=ENDING_SECONDS,
    )


async def _events(caller: Caller, job: Job, point: str) -> AsyncIterator[ServerSentEvent]:
    """The job's events after a point until it has ended or is pruned, or the key has, with what the model says
    meanwhile.
    """
    services = caller.services
    live: list[Json] = []
    async with services.hub.watch(job.id) as watch:
        while not watch.closed and await caller.still_valid():
            lines = await _lines(services, job.id, point)
            if lines is None:
                return  # the client that comes back is told that there is no such job
            for line in lines:
                point = line.id
                yield _kept(line, job.id)
            for event in _not_superseded(live, lines):
                yield _passing(event, job.id)
            if watch.overrun:
                yield _passing({"type": RESET, "data": {"reason": "too_slow"}}, job.id)
                return
            if lines and lines[-1].type in LAST_EVENTS and await _has_ended(services, job.id, point):
                return
            live = await watch.wait() if len(lines) < AT_ONCE else []


async def _lines(services: Services, job_id: str, point: str) -> list[Line] | None:
    """The next lines, None when the job is pruned; none while Redis is away, which is no reason to end a stream."""
    try:
        lines = await services.store.lines(job_id, point, AT_ONCE)
        return lines if lines or await services.link.command("EXISTS", keys.journal(job_id)) else None
    except NotFoundError:
        return None
    except UnavailableError:
        return []


def _not_superseded(live: list[Json], lines: list[Line]) -> list[Json]:
    """The live events but for those that say what a whole reply among the lines says."""
    done = max((line.data["step"] for line in lines if line.type in WHOLE_REPLY), default=-1)
    return [event for event in live if event.get("data", {}).get("step", done + 1) > done]


async def _has_ended(services: Services, job_id: str, point: str) -> bool:
    """Whether the last event at `point` was the job's last; it was not when the job has been retried since."""
    try:
        found = (await services.store.get_many([job_id]))[0]
    except UnavailableError:
        return True  # the client comes back with this event's id, and then finds out
    return found is None or (found.ended and found.end_id == point)


def _kept(line: Line, job_id: str) -> ServerSentEvent:
    event = line.to_event(job_id)
    return ServerSentEvent(_one_line(event), event=line.type, id=event["id"])


def _passing(event: Json, job_id: str) -> ServerSentEvent:
    whole = {"type": event["type"], "job_id": job_id, "created_at": rfc3339(milliseconds()), **event}
    return ServerSentEvent(_one_line(whole), event=event["type"])


def _one_line(event: Json) -> str:
    return dump(event).decode().translate(LINE_SEPARATORS)


def _position(stream_id: str) -> tuple[int, int]:
    ms, _, number = stream_id.partition("-")
    return int(ms), int(number or 0)
