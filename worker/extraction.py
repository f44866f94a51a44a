"""Memories are learnt by jobs of a built-in agent: queue, retries, ledger, budgets and kill switch hold for them too.

A job that has completed is followed by one that is shown what its user said, and changes their memory. It finds the
conversation in the other's journal and keeps no copy. Those of one user run one after the other.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agent_core.agent import Agent
from agent_core.errors import ToolError
from agent_core.memory import UserMemory
from agent_core.tools import tool
from agent_core.types import Budget, Json
from jobs.agents import AgentCatalogue
from jobs.errors import NotFoundError
from jobs.journal import Line
from jobs.records import Job, JobSpec
from jobs.store import JobStore
from memory.errors import (
    EmbeddingError,
    ExtractionError,
    MemoryNotFoundError,
    MemoryUnavailableError,
    ScopeError,
)
from memory.extract import MOST_SHOWN, SCHEMA, SYSTEM, Add, Noop, Operation, Supersede, Turn, parse, request
from memory.longterm import LongTermMemory, tokens_of
from memory.points import Memory, Source
from memory.scope import Scope
from memory.setup import LazyMemory
from worker.children import derived_id
from worker.durable import DurableJournal
from worker.job_memory import AWAY_MS, EXTRACTION, RECALLED, NothingToDo, PutOff
from worker.loader import published
from worker.restore import input_text

MOST_TURNS, SHOWN_TOKENS = 8, 3_000
"""What of a conversation, and of what is known, is shown at most: the extraction has to fit into its budget."""
SOURCE_MS = 1_000
"""The extraction may be there before the end of the job that it is about is written."""


@tool(effect="write", idempotent=True, final=True)
async def change_memory(operations: list[dict[str, Any]]) -> dict[str, Any]:
    """Change what is remembered of the user. An empty list changes nothing."""
    return {"written": await _running.get().apply(operations)}


CHANGE_MEMORY = replace(change_memory, input_schema=SCHEMA)


@functools.cache
def extraction_agent(model: str) -> Agent:
    """The built-in agent, asking a model."""
    return Agent(
        name=EXTRACTION,
        description="Looks for what is worth remembering in what a user said to a job. The platform submits its jobs.",
        instructions=SYSTEM,
        model=model,
        tools=[CHANGE_MEMORY],
        max_tokens=2_048,
        budget=Budget(usd="0.25", steps=4, seconds=600),
        extra={"tool_choice": {"type": "tool", "name": CHANGE_MEMORY.name, "disable_parallel_tool_use": True}},
    )


async def submit_extraction(store: JobStore, source: Job, agent: Agent) -> str:
    """Submits the job that learns from another one, once however often it is asked; returns its id.

    Raises what `JobStore.submit` raises.
    """
    learner = extraction_agent(agent.models.get("summariser", agent.model))
    user = source.spec.user or ""
    spec = JobSpec(
        agent=learner.name,
        agent_version=learner.version,
        input={"job_id": source.id},
        pool=source.spec.pool,
        priority="low",
        session_id=f"memory-{hashlib.sha256(user.encode('utf-8', 'replace')).hexdigest()[:32]}",
        user=source.spec.user,
        tags=["memory"],
        metadata={"job_id": source.id},
        submitted_by=source.spec.submitted_by,
    )
    submitting = store.submit(source.tenant, spec, learner.budget, job_id=derived_id(source.id, EXTRACTION))
    submitted, _ = await asyncio.gather(submitting, _publish(AgentCatalogue(store.link), learner))
    return submitted.job.id


async def _publish(catalogue: AgentCatalogue, learner: Agent) -> None:
    """Publishes the built-in agent, unless it is known."""
    try:
        await catalogue.get(learner.name, learner.version)
    except NotFoundError:
        await catalogue.publish([published(learner)])


def scope_of(job: Job, memory: UserMemory) -> Scope:
    """Whose memory a job has. Raises ScopeError."""
    return Scope(job.tenant, job.spec.user or "", None if memory.shared else job.spec.agent)


class Extraction:
    """What an extraction sees and does. See `worker.job_memory.JobMemory`."""

    def __init__(
        self, job: Job, memory: LazyMemory, store: JobStore, journal: DurableJournal, on_away: Callable[[], None]
    ) -> None:
        self._job = job
        self._configured = memory
        self._store = store
        self._journal = journal
        self._on_away = on_away

    async def opening(self, lines: list[Line]) -> list[Json]:
        source = await self._source()
        history = await self._store.lines(source.id)
        self._turns = turns_of(source, history)
        if not any(turn.role == "user" and turn.text.strip() for turn in self._turns):
            raise NothingToDo("nothing to do: the user said nothing")
        try:
            self._scope = scope_of(source, await self._settings(source))
            memory = await self._configured.get()
            self._known = await self._remembered(memory, lines)
        except ScopeError as exc:
            raise NothingToDo(f"nothing to do: {exc}") from exc
        except (MemoryUnavailableError, EmbeddingError) as exc:
            if _is_lasting(exc):
                raise
            raise PutOff(str(exc)[:300], AWAY_MS) from exc
        self._said_at = datetime.fromtimestamp((source.ended_ms or source.created_ms) / 1000, UTC)
        self._memory = memory.as_of(self._said_at)
        self._evidence = Source(source.id, history[0].id, history[-1].id)
        self._used = [each["id"] for line in history if line.type == RECALLED for each in line.data["memories"]]
        return [{"type": "text", "text": request(self._turns, self._known).message}]

    @contextmanager
    def serving(self) -> Iterator[None]:
        token = _running.set(self)
        try:
            yield
        finally:
            _running.reset(token)

    async def learn(self) -> Json:
        return {}

    async def apply(self, operations: list[Json]) -> list[Json]:
        """Changes memory; returns what was written, by ids. Raises ToolError for what is no list of operations."""
        try:
            changes = parse(json.dumps({"operations": operations}), self._turns, self._known)
        except ExtractionError as exc:
            raise ToolError(
                f"{exc}; nothing was changed, give the whole list again", code="invalid_operations"
            ) from exc
        try:
            written = [await self._write(change) for change in changes]
            await self._memory.mark_used(self._scope, await self._memory.get_many(self._scope, self._used))
        except (MemoryUnavailableError, EmbeddingError) as exc:
            if _is_lasting(exc):
                raise ToolError(str(exc), code="embedding_failed") from exc
            self._on_away()
            await asyncio.Event().wait()  # until the attempt is cancelled; the next one makes this call again
            raise
        return [each for each in written if each is not None]

    async def _source(self) -> Job:
        """The job to learn from. Raises NothingToDo, PutOff."""
        given = self._job.spec.input
        job_id = str(given.get("job_id")) if isinstance(given, dict) else ""
        try:
            source = await self._store.get(self._job.tenant, job_id)
        except NotFoundError as exc:
            raise NothingToDo(f"nothing to do: {exc}") from exc
        if source.spec.user != self._job.spec.user:
            raise NothingToDo(f"nothing to do: job {source.id} is of another user")
        if not source.ended:
            raise PutOff(f"job {source.id} has not ended yet", SOURCE_MS)
        if source.status != "completed":
            raise NothingToDo(f"nothing to do: job {source.id} is {source.status}")
        return source

    async def _settings(self, source: Job) -> UserMemory:
        """What the agent of the source has of its users' memory. Raises NothingToDo."""
        try:
            found = await AgentCatalogue(self._store.link).get(source.spec.agent, source.spec.agent_version)
            return UserMemory(**found.definition["memory"])
        except (NotFoundError, KeyError) as exc:
            raise NothingToDo(f"nothing to do: {source.spec.agent} has no memory of its users") from exc

    async def _remembered(self, memory: LongTermMemory, lines: Sequence[Line]) -> list[Memory | None]:
        """What may be concerned, at the same place in every attempt; None for what was forgotten since."""
        noted = next((line.data["memories"] for line in lines if line.type == RECALLED), None)
        if noted is not None:
            ids = [each["id"] for each in noted]
            there = {each.id: each for each in await memory.get_many(self._scope, ids)}
            return [there.get(each) for each in ids]
        said = "\n".join(turn.text for turn in self._turns if turn.role == "user")
        near = [each.memory for each in await memory.recall(self._scope, said, k=MOST_SHOWN)]
        newest = await memory.browse(self._scope, limit=MOST_SHOWN)  # what contradicts them need not share a word
        found = _fitting({each.id: each for each in [*near, *newest]}.values())
        self._journal.note(RECALLED, {"memories": [{"id": each.id} for each in found]})
        return list(found)

    async def _write(self, change: Operation) -> Json | None:
        about: Json = {"source": self._evidence}
        try:
            match change:
                case Add(text, kind, slot, importance):
                    event_at = self._said_at if kind == "episodic" else None
                    about |= {"kind": kind, "slot": slot, "importance": importance, "event_at": event_at}
                    return {"op": "add", "id": (await self._memory.remember(self._scope, text, **about)).id}
                case Supersede(memory, text, importance):
                    old = await self._memory.get(self._scope, memory.id)
                    said_since = old.last_confirmed_at > self._said_at
                    if said_since and old.slot is None:
                        return None
                    kept = await self._memory.supersede(self._scope, old.id, text, importance=importance, **about)
                    if said_since:  # that stays current in its slot, and this stands in its history
                        return {"op": "add", "id": kept.id}
                    return {"op": "supersede", "id": kept.id, "superseded": old.id}
                case Noop(memory):
                    old = await self._memory.get(self._scope, memory.id)
                    about |= {"kind": old.kind, "slot": old.slot}
                    return {"op": "noop", "id": (await self._memory.remember(old.scope, old.text, **about)).id}
        except MemoryNotFoundError:  # forgotten since it was shown
            return None


def _fitting(found: Collection[Memory]) -> list[Memory]:
    """The first of them, as many as an extraction has room for."""
    sizes = itertools.accumulate(tokens_of(each) for each in found)
    return [each for each, size in zip(found, sizes, strict=True) if size <= SHOWN_TOKENS][:MOST_SHOWN]


def _is_lasting(failure: Exception) -> bool:
    """Whether the same call would fail again later."""
    return isinstance(failure, EmbeddingError) and not failure.retryable


_running: contextvars.ContextVar[Extraction] = contextvars.ContextVar("extraction")


def turns_of(source: Job, lines: Sequence[Line]) -> list[Turn]:
    """What a job's user said, and its answer: no tool's result, and of an input that was redacted what was left."""
    redacted = [
        line.data["text"]
        for line in lines
        if line.type == "guardrail.checked" and line.data["stage"] == "input" and line.data["text"] is not None
    ]
    said = [line.data["text"] for line in lines if line.type == "user.message"]
    answer = source.output if isinstance(source.output, str) else json.dumps(source.output, ensure_ascii=False)
    first = redacted[-1] if redacted else input_text(source)
    return [*(Turn("user", text) for text in [first, *said][-MOST_TURNS:]), Turn("assistant", answer)]
