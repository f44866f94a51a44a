"""What a running tool may know of its job."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent_core.errors import ToolError
from agent_core.types import Json


class ArtifactStore(Protocol):
    """Where a tool's files go."""

    async def save(self, job_id: str, name: str, data: bytes) -> Json: ...

    async def load(self, job_id: str, name: str) -> bytes:
        """An artifact's content. Raises FileNotFoundError when the job has none of that name."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """What a tool returns whose call is another job now, which has not ended: the call is made again when it has."""

    job_id: str


class Children(Protocol):
    """Where parts of a job go that other agents do."""

    async def delegate(self, call_id: str, agent: str, task: str, usd: str | None) -> Pending | Json:
        """Starts the job of a call, once however often it is asked, or says what became of it: its `job_id`, `status`,
        `output` and `cost_usd`. Raises ToolError when it cannot be started, and when it failed.
        """
        ...


def _as_it_is(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a running tool may know of its job.

    `call_id` is the call's idempotency key: the same on every attempt at the call, in every process.
    """

    job_id: str
    call_id: str
    directory: Path
    artifacts: ArtifactStore | None = None
    children: Children | None = None
    redact: Callable[[str], str] = _as_it_is
    """Takes secrets out of a text before anyone keeps or sees it."""

    @property
    def workspace(self) -> Path:
        """A directory of the job's own that holds its input files; it is made when it is first asked for."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory

    @property
    def keeps_artifacts(self) -> bool:
        return self.artifacts is not None

    async def save_artifact(self, name: str, data: bytes) -> Json:
        """Keeps a file with the job; returns its id, name and size. Raises ToolError when there is no place for it."""
        return await self._place().save(self.job_id, name, data)

    async def load_artifact(self, name: str) -> bytes:
        """The content of an artifact of this job. Raises FileNotFoundError; ToolError when none can be kept."""
        return await self._place().load(self.job_id, name)

    def _place(self) -> ArtifactStore:
        if self.artifacts is None:
            raise ToolError("this run has no place to keep artifacts", code="no_artifact_store")
        return self.artifacts


running: contextvars.ContextVar[ToolContext] = contextvars.ContextVar("tool_context")


def tool_context() -> ToolContext:
    """The context of the tool call that is running. Raises LookupError outside a tool call."""
    return running.get()
