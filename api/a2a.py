"""The platform as an A2A server at `/a2a`, over the functions that the routes use, behind the same keys and scopes.

It imports the A2A SDK; see `api.lazy`. Of the SDK it takes the wire: what runs a task, and keeps it, are jobs.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Never

import structlog
from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.server.routes import DefaultServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskArtifactUpdateEvent,
    TaskPushNotificationConfig,
    TaskStatusUpdateEvent,
)
from a2a.utils.errors import (
    A2AError,
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.task import validate_page_size
from google.protobuf.json_format import MessageToDict, ParseDict
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api import agent_card
from api.a2a_tasks import artifact_of, context_of, ruling_of, status_of, statuses_of, submission_of, task_of
from api.audit import Change, noted
from api.auth import Caller
from api.errors import FieldsError, RefusedError, problem, request_id_of
from api.schemas import RulingIn, Submission
from api.submission import fingerprinted
from api.waiting import changes, settled, until_settled
from jobs import actions
from jobs.approvals import Approval
from jobs.errors import ConflictError, InvalidError
from jobs.keyring import Scope as KeyScope
from jobs.listing import Filters, list_approvals, list_jobs
from jobs.records import Job
from jobs.rulings import Ruling, decide
from jobs.status import STATUSES

log = structlog.get_logger(__name__)

WAIT_SECONDS = 60
"""How long a message that is not streamed waits for its task's end; a client that is answered before looks again."""
PAGE = 50
UNCOUNTED = -1
ERROR_OF: dict[int, type[A2AError]] = {
    404: TaskNotFoundError,
    409: UnsupportedOperationError,
    410: UnsupportedOperationError,
    500: InternalError,
}
SHOWN = ("code", "request_id", "errors")
OF_HTTP = frozenset({403, 503})
"""Statuses for which A2A has no error of its own; they are answered as they are everywhere else."""


def serving() -> AbstractAsyncContextManager[ASGIApp]:
    """The application of `/a2a`: JSON-RPC, with server-sent events for what is streamed."""
    dispatcher = JsonRpcDispatcher(JobRequestHandler(), ContextBuilder())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        answer = await dispatcher.handle_requests(Request(scope, receive))
        await answer(scope, receive, send)

    return nullcontext(app)


class ContextBuilder(DefaultServerCallContextBuilder):
    """Hands the HTTP request on to the handler."""

    def build(self, request: Request) -> ServerCallContext:
        context = super().build(request)
        context.state["request"] = request
        return context


@contextmanager
def refusing(context: ServerCallContext, conflict: type[A2AError] = UnsupportedOperationError) -> Iterator[None]:
    """Turns the platform's refusals into those of A2A; `details` hold the code and the request id."""
    request_id = request_id_of(context.state["request"])
    try:
        yield
    except (A2AError, HTTPException):
        raise
    except Exception as exc:
        document = problem(exc, request_id)
        status = document["status"]
        if status == 500:
            log.exception("A2A request failed", request_id=request_id)
        if status in OF_HTTP:
            raise RefusedError(status, document["code"], document["detail"]) from exc
        kind = conflict if status == 409 else ERROR_OF.get(status, InvalidParamsError)
        raise kind(document["detail"], {key: document[key] for key in SHOWN if document[key]}) from None


class JobRequestHandler(RequestHandler):
    """Answers each A2A request for the caller whose key it carries."""

    @validate_request_params
    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task:
        with refusing(context):
            caller = _caller(context, "jobs:read")
            return await _task(caller, await caller.services.store.get(caller.tenant, params.id))

    @validate_request_params
    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """A page; one of a state that stands for several statuses may be short, and still have a next one."""
        with refusing(context):
            caller = _caller(context, "jobs:read")
            if params.HasField("page_size"):
                validate_page_size(params.page_size)
            if params.HasField("status_timestamp_after"):
                raise InvalidError("statusTimestampAfter: tasks are listed by contextId and status alone")
            statuses = statuses_of(params.status) if params.status else STATUSES
            filters = Filters(statuses[0] if len(statuses) == 1 else None, session_id=params.context_id or None)
            jobs, cursor = await list_jobs(
                caller.services.store, caller.tenant, filters, limit=params.page_size or PAGE, after=params.page_token
            )
            tasks = [await _task(caller, job) for job in jobs if job.status in statuses]
        return ListTasksResponse(
            tasks=tasks, next_page_token=cursor or "", page_size=params.page_size or PAGE, total_size=UNCOUNTED
        )

    @validate_request_params
    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task:
        with refusing(context, conflict=TaskNotCancelableError):
            async with _noted(context, "cancel_job", params.id):
                caller = _caller(context, "jobs:write")
                job = await actions.cancel(caller.services.store, caller.tenant, params.id)
            return await _task(caller, job)

    @validate_request_params
    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task:
        with refusing(context):
            caller, job = await _received(params, context)
            wait = 0 if params.configuration.return_immediately else WAIT_SECONDS
            services = caller.services
            return await _task(caller, await until_settled(services.store, services.hub, caller.tenant, job.id, wait))

    @validate_request_params
    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        with refusing(context):
            caller, job = await _received(params, context)
            yield await _task(caller, job)
            if not settled(job):  # a decision may leave others open
                async for event in _followed(caller, job):
                    yield event

    @validate_request_params
    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        with refusing(context):
            caller = _caller(context, "jobs:read")
            job = await caller.services.store.get(caller.tenant, params.id)
            if job.ended:
                raise ConflictError(f"task {job.id} is {job.status}; nothing more will happen to it")
            yield await _task(caller, job)
            async for event in _followed(caller, job):
                yield event

    @validate_request_params
    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        with refusing(context):
            catalogue = _caller(context, "jobs:read").services.agents
            names = await catalogue.names()
            agents = await asyncio.gather(*(catalogue.get(name, version) for name, version in names.items()))
            skills = [agent_card.skill(agent) for agent in agents] or [agent_card.RUN_A_JOB]
            return ParseDict(agent_card.card(context.state["request"], skills), AgentCard())

    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> Never:
        raise PushNotificationNotSupportedError

    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> Never:
        raise PushNotificationNotSupportedError

    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        raise PushNotificationNotSupportedError

    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        raise PushNotificationNotSupportedError


def _caller(context: ServerCallContext, *scopes: KeyScope) -> Caller:
    caller: Caller = context.state["request"].state.caller
    for scope in scopes:
        caller.require(scope)
    return caller


def _noted(context: ServerCallContext, action: str, target: str | None = None) -> AbstractAsyncContextManager[Change]:
    request: Request = context.state["request"]
    return noted(request.scope, request.state.caller.key, action, target)


async def _received(params: SendMessageRequest, context: ServerCallContext) -> tuple[Caller, Job]:
    """The job that a message submits, or decides about when it names a task."""
    if params.configuration.HasField("task_push_notification_config"):
        raise PushNotificationNotSupportedError
    message = params.message
    if message.task_id:
        async with _noted(context, "decide_approval", message.task_id):
            caller = _caller(context, "approvals:write", "jobs:read")
            return caller, await _decided(caller, message)
    async with _noted(context, "submit_job") as change:
        caller = _caller(context, "jobs:write")
        job = await _submitted(caller, context.state["request"], message)
        change.target = job.id
    return caller, job


async def _submitted(caller: Caller, request: Request, message: Message) -> Job:
    given = submission_of(message, message.context_id or f"ctx_{uuid.uuid4().hex}")
    if "agent" not in given:
        given["agent"] = await _only_agent(caller)
    try:
        submission = Submission.model_validate(given)
    except ValidationError as exc:
        raise FieldsError.of(exc) from None
    marked = fingerprinted(request, message.message_id, MessageToDict(message))
    return (await caller.services.intake.submit(caller.tenant, submission, marked, caller.key.key_id)).job


async def _only_agent(caller: Caller) -> str:
    names = list(await caller.services.agents.names())
    if len(names) != 1:
        known = ", ".join(names) or "none; start a worker with NIGHTSHIFT_AGENTS set"
        raise InvalidError(f"metadata.job.agent: name the agent that is to do it; there are: {known}")
    return names[0]


async def _decided(caller: Caller, message: Message) -> Job:
    store = caller.services.store
    job = await store.get(caller.tenant, message.task_id)
    if message.context_id not in ("", context_of(job)):
        raise InvalidError(f"contextId: task {job.id} is of the context {context_of(job)}")
    asks = await _asks(caller, job)
    if not asks:
        raise ConflictError(f"task {job.id} is {job.status} and asks nothing; leave taskId out to begin another one")
    approval, fields = ruling_of(message, asks)
    try:
        ruling = RulingIn.model_validate(fields)
    except ValidationError as exc:
        raise FieldsError.of(exc) from None
    await decide(store, caller.tenant, approval.id, Ruling(**ruling.model_dump()), caller.key.key_id)
    return await store.get(caller.tenant, job.id)


async def _followed(caller: Caller, job: Job) -> AsyncGenerator[Event]:
    """What becomes of a task, until it has ended or needs someone again."""
    services, context_id = caller.services, context_of(job)
    async for now in changes(services.store, services.hub, job):
        if not await caller.still_valid():
            return
        if now.output is not None:
            yield TaskArtifactUpdateEvent(
                task_id=job.id, context_id=context_id, artifact=artifact_of(now), last_chunk=True
            )
        yield TaskStatusUpdateEvent(
            task_id=job.id, context_id=context_id, status=status_of(now, await _asks(caller, now))
        )


async def _task(caller: Caller, job: Job) -> Task:
    return task_of(job, await _asks(caller, job))


async def _asks(caller: Caller, job: Job) -> list[Approval]:
    if job.status != "requires_action":
        return []
    found, _ = await list_approvals(caller.services.link, job.tenant, status="pending", job_id=job.id, limit=200)
    return found
