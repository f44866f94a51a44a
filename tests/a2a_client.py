"""The A2A SDK's own client, as the tests use it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from a2a.client import Client, ClientConfig, create_client
from a2a.types import Role, SendMessageRequest, StreamResponse, Task, TaskState
from google.protobuf.json_format import MessageToDict, ParseDict

from agent_core.types import Json


@asynccontextmanager
async def speaking(url: str, secret: str, *, streaming: bool = True) -> AsyncIterator[Client]:
    """A client that found the platform by its card, with a key."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {secret}"}, timeout=20) as http:
        yield await create_client(url, ClientConfig(httpx_client=http, streaming=streaming))


def message(*parts: Json, job: Json | None = None, **fields: Any) -> SendMessageRequest:
    """A message of these parts; `job` has the fields of the submission, `fields` those of the message."""
    said = {"messageId": uuid.uuid4().hex, "role": Role.ROLE_USER, "parts": parts, **fields}
    if job is not None:
        said["metadata"] = {"job": job}
    return ParseDict({"message": said}, SendMessageRequest())


def text(words: str) -> Json:
    return {"text": words}


def about(task: Task) -> Json:
    """What a task says of its job."""
    found: Json = MessageToDict(task.metadata)["job"]
    return found


async def told(client: Client, request: SendMessageRequest) -> list[StreamResponse]:
    """All that the client hears after a message."""
    return [event async for event in client.send_message(request)]


def states(events: list[StreamResponse]) -> list[str]:
    """The states of what was heard, in the short."""
    found = [event.task.status if event.HasField("task") else event.status_update.status
             for event in events if not event.HasField("artifact_update")]  # fmt: skip
    return [TaskState.Name(status.state).removeprefix("TASK_STATE_") for status in found]
