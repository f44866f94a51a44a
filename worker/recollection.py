"""Long-term memory of ordinary jobs: what fits the input is shown before it, and what was said is learnt afterwards.

The journal has which memories were shown by their ids, not what they say: whoever forgets a user leaves no text of them
there, and a later attempt shows the same ones, for a memory's text never changes under its id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime

import structlog

from agent_core.agent import Agent
from agent_core.memory import UserMemory
from agent_core.types import Json
from jobs.journal import Line
from jobs.records import Job
from jobs.store import JobStore
from memory.errors import MemoryLayerError
from memory.longterm import LongTermMemory
from memory.points import Recalled, Source
from memory.scope import Scope
from memory.setup import LazyMemory
from memory.tools import as_context, serving
from worker.durable import DurableJournal
from worker.extraction import scope_of, submit_extraction
from worker.job_memory import RECALLED, UNAVAILABLE
from worker.restore import input_text

RECALL_SECONDS = 2.0
"""A job waits no longer for its memories."""
log = structlog.get_logger("worker")


class Recollection:
    """See `worker.job_memory.JobMemory`."""

    def __init__(
        self,
        job: Job,
        agent: Agent,
        settings: UserMemory,
        memory: LazyMemory,
        store: JobStore,
        journal: DurableJournal,
    ) -> None:
        self._job = job
        self._agent = agent
        self._settings = settings
        self._configured = memory
        self._store = store
        self._journal = journal
        self._memory: LongTermMemory | None = None

    async def opening(self, lines: list[Line]) -> list[Json]:
        """A job whose memory was away once goes on without it, so that its first message only ever becomes smaller:
        what the model counted of it before stays an upper bound.
        """
        noted = next((line for line in reversed(lines) if line.type in (RECALLED, UNAVAILABLE)), None)
        if noted is not None and noted.type == UNAVAILABLE:
            return []
        begun = time.monotonic()
        try:
            async with asyncio.timeout(RECALL_SECONDS):
                memory = await self._configured.get()
                found = await (self._recall(memory) if noted is None else self._again(memory, noted.data["memories"]))
        except (MemoryLayerError, TimeoutError) as exc:
            detail = str(exc)[:300] or f"memory did not answer within {RECALL_SECONDS:g} seconds"
            self._journal.note(UNAVAILABLE, {"detail": detail})
            return []
        self._memory = memory
        if noted is None or len(found) < len(noted.data["memories"]):
            ms = round((time.monotonic() - begun) * 1000)
            self._journal.note(RECALLED, {"memories": [_note(each) for each in found], "ms": ms})
        return [{"type": "text", "text": as_context(found)}] if found else []

    def serving(self) -> AbstractContextManager[object]:
        if self._memory is None:
            return nullcontext()
        return serving(self._memory, self._scope, Source(self._job.id))

    async def learn(self) -> Json:
        """What keeps the extraction from being submitted is logged, and is nothing to the job."""
        above = self._job.spec.parent_id  # what an agent says to another one is none of the user's words
        if above is not None or not self._settings.learns or not self._configured.is_set_up:
            return {}
        try:
            return {"extraction": await submit_extraction(self._store, self._job, self._agent)}
        except Exception as exc:  # whatever it is: the job has its answer
            log.warning("nothing is learnt from a job", job=self._job.id, error=str(exc))
            return {}

    @property
    def _scope(self) -> Scope:
        return scope_of(self._job, self._settings)

    async def _recall(self, memory: LongTermMemory) -> list[Recalled]:
        asked = input_text(self._job)
        if not asked.strip():
            return []
        return await memory.recall(self._scope, asked, k=self._settings.k, tokens=self._settings.tokens)

    async def _again(self, memory: LongTermMemory, noted: Sequence[Json]) -> list[Recalled]:
        """What an earlier attempt recalled, as it was shown then, but for what was forgotten since."""
        found = {each.id: each for each in await memory.get_many(self._scope, [each["id"] for each in noted])}
        return [
            Recalled(replace(found[each["id"]], last_confirmed_at=datetime.fromisoformat(each["said"])), each["score"])
            for each in noted
            if each["id"] in found
        ]


def _note(recalled: Recalled) -> Json:
    said = recalled.memory.last_confirmed_at.date().isoformat()
    return {"id": recalled.memory.id, "said": said, "score": round(recalled.score, 4)}
