"""The platform as an MCP server at `/mcp`: its tools are what the routes do, behind the same keys and scopes.

It imports the MCP SDK; see `api.lazy`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import mcp_types
import structlog
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp

from agent_core.types import Json
from api.audit import noted
from api.auth import Caller
from api.body import MAX_BYTES
from api.errors import FieldsError, RefusedError, problem, request_id_of
from api.responses import page
from api.schemas import ListedStatus, RulingIn, Strict, Submission, Word
from api.submission import fingerprinted
from api.waiting import until_settled
from jobs import actions
from jobs.errors import JobsError, StaleAttemptError
from jobs.keyring import Scope as KeyScope
from jobs.listing import Filters, list_jobs
from jobs.rulings import Ruling, decide

log = structlog.get_logger(__name__)

LONGEST_WAIT = 30
EXPECTED = (JobsError, StaleAttemptError, HTTPException)
JobId = Annotated[str, Field(min_length=1, max_length=80, description="Like job_…")]


class JobToSubmit(Submission):
    """A submission; the same `idempotency_key` with the same job submits it once in 24 hours."""

    idempotency_key: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[ -~]+$")] | None = None


class OneJob(Strict):
    """A job."""

    job_id: JobId


class JobToWatch(OneJob):
    """A job, and how long to wait for its end."""

    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT, description="Seconds to wait for its end.")] = 0.0


class JobsToList(Strict):
    """Which jobs."""

    status: ListedStatus | None = None
    agent: Annotated[str, Field(max_length=64)] | None = None
    tag: Word | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    after: Annotated[str, Field(max_length=200, description="The `next_cursor` of the page before.")] | None = None


class ApprovalToDecide(RulingIn):
    """An approval, and what is decided; once only."""

    approval_id: Annotated[str, Field(min_length=1, max_length=80, description="Like appr_…")]


@dataclass(frozen=True, slots=True)
class Offer:
    """One tool: the scope that it takes, its arguments, and what runs it for a caller."""

    name: str
    scope: KeyScope
    description: str
    arguments: type[Strict]
    run: Callable[[Caller, Request, Any], Awaitable[Json]]
    hint: Literal["reads", "writes", "destroys"]

    def to_tool(self) -> mcp_types.Tool:
        """As the protocol lists it."""
        hints = mcp_types.ToolAnnotations(read_only_hint=self.hint == "reads", destructive_hint=self.hint == "destroys")
        return mcp_types.Tool(
            name=self.name,
            description=self.description,
            input_schema=self.arguments.model_json_schema(),
            annotations=hints,
        )


async def _submit(caller: Caller, request: Request, given: JobToSubmit) -> Json:
    key = given.idempotency_key
    asked = given.model_dump(mode="json", exclude={"idempotency_key"}, exclude_unset=True)
    marked = fingerprinted(request, key, asked) if key else None
    return (await caller.services.intake.submit(caller.tenant, given, marked, caller.key.key_id)).job.to_json()


async def _status(caller: Caller, request: Request, given: JobToWatch) -> Json:
    services = caller.services
    return (await until_settled(services.store, services.hub, caller.tenant, given.job_id, given.wait)).to_json()


async def _list(caller: Caller, request: Request, given: JobsToList) -> Json:
    filters = Filters(given.status, given.agent, given.tag)
    jobs, cursor = await list_jobs(caller.services.store, caller.tenant, filters, limit=given.limit, after=given.after)
    return page([job.to_json() for job in jobs], cursor)


async def _cancel(caller: Caller, request: Request, given: OneJob) -> Json:
    return (await actions.cancel(caller.services.store, caller.tenant, given.job_id)).to_json()


async def _decide(caller: Caller, request: Request, given: ApprovalToDecide) -> Json:
    ruling = Ruling(**given.model_dump(exclude={"approval_id"}))
    found = await decide(caller.services.store, caller.tenant, given.approval_id, ruling, caller.key.key_id)
    return found.to_json()


OFFERS = {
    offer.name: offer
    for offer in (
        Offer("submit_job", "jobs:write", "Submit a job to an agent. It runs unattended; job_status says what became "
              "of it.", JobToSubmit, _submit, "writes"),
        Offer("job_status", "jobs:read", "Look at a job: its status, output, cost, and what it waits for.", JobToWatch,
              _status, "reads"),
        Offer("list_jobs", "jobs:read", "List jobs, the newest first.", JobsToList, _list, "reads"),
        Offer("cancel_job", "jobs:write", "Cancel a job. It cannot be undone, but what it did stays done.", OneJob,
              _cancel, "destroys"),
        Offer("decide_approval", "approvals:write", "Approve or deny what a job asks a person.", ApprovalToDecide,
              _decide, "writes"),
    )
}  # fmt: skip


@asynccontextmanager
async def serving() -> AsyncIterator[ASGIApp]:
    """The application of `/mcp`: streamable HTTP without sessions, so that any API process answers any request."""
    server = Server("nightshift", on_list_tools=_list_tools, on_call_tool=_call_tool)
    manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True, max_request_body_size=MAX_BYTES)
    async with manager.run():
        yield manager.handle_request


async def _list_tools(context: Any, params: object) -> mcp_types.ListToolsResult:
    """The tools for which the key has the scope."""
    caller: Caller = context.request.state.caller
    return mcp_types.ListToolsResult(tools=[o.to_tool() for o in OFFERS.values() if caller.key.may(o.scope)])


async def _call_tool(context: Any, params: mcp_types.CallToolRequestParams) -> mcp_types.CallToolResult:
    """What a tool answers; a refusal is an error result with the problem document of the HTTP API."""
    request: Request = context.request
    try:
        return _result(await _run(request.state.caller, request, params.name, params.arguments or {}))
    except Exception as exc:
        if not isinstance(exc, EXPECTED):
            log.exception("tool call failed", request_id=request_id_of(request), tool=params.name[:80])
        return _result(problem(exc, request_id_of(request)), is_error=True)


async def _run(caller: Caller, request: Request, name: str, arguments: Json) -> Json:
    offer = OFFERS.get(name)
    if offer is None:
        raise RefusedError(404, "not_found", f"there is no tool {name[:80]!r}; there are: {', '.join(OFFERS)}")
    if offer.hint == "reads":
        return await offer.run(caller, request, _arguments(offer, caller, arguments))
    async with noted(request.scope, caller.key, offer.name) as change:
        given = _arguments(offer, caller, arguments)
        change.target = getattr(given, "job_id", None) or getattr(given, "approval_id", None)
        answer = await offer.run(caller, request, given)
        change.target = answer["id"]
    return answer


def _arguments(offer: Offer, caller: Caller, arguments: Json) -> Strict:
    """What a tool is called with. Raises RefusedError, FieldsError."""
    caller.require(offer.scope)
    try:
        return offer.arguments.model_validate(arguments)
    except ValidationError as exc:
        raise FieldsError.of(exc) from None


def _result(value: Json, *, is_error: bool = False) -> mcp_types.CallToolResult:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
    content: list[mcp_types.ContentBlock] = [mcp_types.TextContent(type="text", text=text)]
    return mcp_types.CallToolResult(content=content, structured_content=json.loads(text), is_error=is_error)
