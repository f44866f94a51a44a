"""Where a run starts: the session's conversation, the job's input, and the fold of what earlier attempts recorded."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent_core.entries import Compacted
from agent_core.errors import ToolError
from agent_core.state import State
from agent_core.toolbox import workspace as workspaces
from agent_core.toolbox.files import write_file
from agent_core.turn import BUDGET_BUSY
from agent_core.types import Json, Usage
from jobs.decisions import open_decisions
from jobs.files import FileStore
from jobs.journal import Line
from jobs.records import Job
from jobs.store import JobStore
from memory.session import Conversation, SessionMemory, SessionScope
from worker.attachments import attach
from worker.job_memory import EXTRACTION, WITHOUT_MEMORY, JobMemory


@dataclass(slots=True)
class Restored:
    """A state and what the executor has to know of the history."""

    state: State
    session_length: int
    session_generation: int
    """Where the session's conversation stood when the job began."""
    fresh: bool
    """No attempt has noted that yet."""
    decisions: list[Json]
    """What people decided about interrupted calls since an attempt last ran."""
    deferrals: int
    """How often the job was put off since the model last answered."""
    remembered: list[Json]
    """What stands before the task of its user's long-term memory; no session keeps it."""


async def restore(
    job: Job,
    store: JobStore,
    sessions: SessionMemory,
    workspace: Path,
    files: FileStore,
    memory: JobMemory = WITHOUT_MEMORY,
) -> Restored:
    """Reads all that the run goes on from.

    Raises NotFoundError when one of its files is gone, and what `JobMemory.opening` raises.
    """
    lines = await store.lines(job.id)
    noted = next((line.data for line in lines if "session_length" in line.data), None)
    said = Conversation([])
    if (scope := session_of(job)) is not None:
        said = await sessions.read(scope, None if noted is None else noted["session_length"])
    stands = (said.end, said.generation)
    began = stands if noted is None else (noted["session_length"], noted.get("session_generation", 0))
    paths = await _fetch_files(job, workspace, files)
    attached = await asyncio.to_thread(attach, paths)
    await asyncio.to_thread(_rewrite, workspace, lines)
    remembered = await memory.opening(lines)
    state = State(said.messages, elapsed=job.ran_ms / 1000)
    text = opening_text(job, [path.name for path in paths])
    state.open(text, [*attached.blocks, *remembered], attached.tokens)
    if noted is not None and began == stands:
        fold(state, lines)
    else:  # what was summed up before the first reply was another conversation than this one
        fold(state, [line for line in lines if line.type != Compacted.TYPE or line.data["step"]])
        state.summary = state.summary if state.step else None
    # What the model counted was of another conversation; a fork's had other memories before its task.
    if began != stands or (remembered and job.spec.forked_from is not None):
        state.measured = None
    return Restored(
        state,
        session_length=began[0],
        session_generation=began[1],
        fresh=noted is None,
        decisions=open_decisions(lines),
        deferrals=_deferrals(lines),
        remembered=remembered,
    )


def session_of(job: Job) -> SessionScope | None:
    """The conversation that a job goes on with; an extraction's session has none, and only puts it in line."""
    if job.spec.session_id is None or job.spec.agent == EXTRACTION:
        return None
    return SessionScope(job.tenant, job.spec.session_id)


def fold(state: State, lines: list[Line]) -> None:
    """Folds journal lines into a state. What a fork copied gives it its history and costs it nothing."""
    copied = True
    for line in lines:
        if copied and line.attempt > 0:
            copied, state.usage = False, Usage()
        if line.type == "user.message":
            state.say(line.data["text"])
        elif line.type == "job.queued" and line.data.get("retry"):
            state.reopen()
        elif (entry := line.entry()) is not None:
            state.apply(entry)
    if copied:
        state.usage = Usage()


def input_text(job: Job) -> str:
    """The job's input as a text."""
    return job.spec.input if isinstance(job.spec.input, str) else json.dumps(job.spec.input, ensure_ascii=False)


def opening_text(job: Job, files: list[str]) -> str:
    """The first message: the input, and which files there are."""
    text = input_text(job)
    return f"{text}\n\nFiles of this job: {', '.join(files)}" if files else text


async def _fetch_files(job: Job, workspace: Path, files: FileStore) -> list[Path]:
    paths = []
    for file_id in job.spec.files:
        record = await files.get(job.tenant, file_id)
        paths.append(await files.fetch(record, workspace))
    return paths


def _rewrite(workspace: Path, lines: list[Line]) -> None:
    """Makes the files anew that calls of the toolbox's `write_file` made: an earlier attempt may have run elsewhere."""
    asked = {line.data["call_id"]: line.data["input"] for line in lines if line.type == "tool.requested"}
    for line in lines:
        if line.type != "tool.completed" or line.data["name"] != write_file.name or line.data["is_error"]:
            continue
        given = asked.get(line.data["call_id"], {})
        with suppress(ToolError, KeyError, AttributeError):  # another tool of that name, with other arguments
            workspace.mkdir(parents=True, exist_ok=True)
            workspaces.write(workspace, given["path"], given["content"].encode("utf-8", "replace"))


def _deferrals(lines: list[Line]) -> int:
    count = 0
    for line in lines:
        if line.type == "model.completed":
            count = 0
        elif line.type == "job.queued" and "deferred" in line.data and line.data.get("code") != BUDGET_BUSY:
            count += 1
    return count
