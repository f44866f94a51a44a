"""Jobs as A2A tasks, and A2A messages as submissions and decisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from a2a.types import Artifact, Message, Part, Task, TaskState, TaskStatus
from a2a.utils.errors import ContentTypeNotSupportedError
from google.protobuf.json_format import MessageToDict, ParseDict

from agent_core.types import Json
from jobs.approvals import Approval
from jobs.errors import InvalidError
from jobs.records import Job, rfc3339
from jobs.status import Status

STATE_OF: dict[Status, str] = {
    "scheduled": "TASK_STATE_SUBMITTED",
    "queued": "TASK_STATE_SUBMITTED",
    "running": "TASK_STATE_WORKING",
    "requires_action": "TASK_STATE_INPUT_REQUIRED",
    "paused": "TASK_STATE_INPUT_REQUIRED",
    "completed": "TASK_STATE_COMPLETED",
    "failed": "TASK_STATE_FAILED",
    "expired": "TASK_STATE_FAILED",
    "cancelled": "TASK_STATE_CANCELED",
}
SHOWN = ("agent", "agent_version", "status", "stop_reason", "usage", "error")
IN_THE_MESSAGE = {"input": "parts", "session_id": "contextId"}


def statuses_of(state: int) -> list[Status]:
    """The statuses of jobs that a state of tasks stands for."""
    return [status for status, name in STATE_OF.items() if TaskState.Value(name) == state]


def context_of(job: Job) -> str:
    """The id of a job's context: its session, or the job alone."""
    return job.spec.session_id or job.id


def task_of(job: Job, asks: Sequence[Approval]) -> Task:
    """A job as a task; `asks` is what it waits to have decided."""
    shown = job.to_json()
    metadata = {"job": {name: shown[name] for name in SHOWN}}
    artifacts = [artifact_of(job)] if job.output is not None else []
    task = Task(id=job.id, context_id=context_of(job), status=status_of(job, asks), artifacts=artifacts)
    ParseDict(metadata, task.metadata)
    return task


def status_of(job: Job, asks: Sequence[Approval]) -> TaskStatus:
    """A job's state, with what it asks, or why it stopped."""
    status: Json = {"state": STATE_OF[job.status], "timestamp": rfc3339(job.ended_ms or job.since_ms or job.created_ms)}
    if parts := _said(job, asks):
        # the same for the same state of the job, so that a client that looks twice reads it once
        message_id = f"{job.id}-{job.attempts}-{job.status}"
        status["message"] = {"messageId": message_id, "role": "ROLE_AGENT", "parts": parts, "taskId": job.id}
    found: TaskStatus = ParseDict(status, TaskStatus())
    return found


def artifact_of(job: Job) -> Artifact:
    """A job's output, in part when the job did not complete."""
    return ParseDict({"artifactId": f"{job.id}-output", "parts": [_part(job.output)]}, Artifact())


def submission_of(message: Message, session_id: str) -> Json:
    """The fields of a submission that a message holds. Raises InvalidError, ContentTypeNotSupportedError."""
    fields = _plain(MessageToDict(message.metadata)).get("job", {})
    if not isinstance(fields, dict):
        raise InvalidError("metadata.job: expected an object with fields of a submission, like agent or budget")
    for name, place in IN_THE_MESSAGE.items():
        if name in fields:
            raise InvalidError(f"metadata.job.{name}: stands in the message's own {place}")
    return {**fields, "input": _input(message.parts), "session_id": session_id}


def ruling_of(message: Message, asks: Sequence[Approval]) -> tuple[Approval, Json]:
    """The approval that a message is about, and the fields of its ruling. Raises InvalidError, and as above.

    A question is answered by text. A call is never approved by a text that someone would have to interpret.
    """
    given = _input(message.parts)
    if isinstance(given, str):
        questions = [approval for approval in asks if approval.request.kind == "question"]
        if len(questions) != 1:
            raise InvalidError('a text answers one open question; else send a data part: {"decision": …}')
        return questions[0], {"decision": "approve", "answer": given}
    wanted = given.pop("approval_id", None)
    found = [approval for approval in asks if wanted in (None, approval.id)]
    if len(found) != 1:
        raise InvalidError(f"approval_id: expected one of {', '.join(approval.id for approval in asks)}")
    return found[0], given


def _said(job: Job, asks: Sequence[Approval]) -> list[Json]:
    if asks:
        return [part for approval in asks for part in _asked(approval)]
    if job.status == "requires_action":
        return [_part(f"waits for a person: {job.stop_reason}; see GET /v1/jobs/{job.id}/explain")]
    if job.status == "paused":
        return [_part(f"is paused; POST /v1/jobs/{job.id}/resume lets it go on")]
    return [_part(str(job.error["message"]))] if job.error else []


def _asked(approval: Approval) -> Iterable[Json]:
    asked = approval.request
    if asked.kind == "question":
        yield _part(str(asked.input.get("question", "")))
    yield _part({"approval_id": approval.id, "kind": asked.kind, "tool": asked.name, "input": asked.input,
                 "input_sha256": approval.input_sha256, "expires_at": rfc3339(approval.expires_ms)})  # fmt: skip


def _part(value: Any) -> Json:
    return {"text": value, "mediaType": "text/plain"} if isinstance(value, str) else {"data": value}


def _input(parts: Iterable[Part]) -> Any:
    """Texts, put together, or one object."""
    given = list(parts)
    if all(part.WhichOneof("content") == "text" for part in given):
        return "\n\n".join(part.text for part in given)
    if len(given) == 1 and given[0].data.WhichOneof("kind") == "struct_value":
        return _plain(MessageToDict(given[0].data))
    raise ContentTypeNotSupportedError(
        "send text parts, or one data part with an object; files go to POST /v1/files, and their ids to "
        "metadata.job.files"
    )


def _plain(value: Any) -> Any:
    """What a protobuf value holds, with whole numbers as such: it knows doubles alone."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case float() if value.is_integer():
            return int(value)
    return value
