"""What a job has of its user's long-term memory, as the executor sees it.

What does it is imported for jobs that have memory alone: Qdrant's client takes a second or two to load.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from agent_core.agent import Agent
from agent_core.types import Json
from jobs.journal import Line
from jobs.records import Job
from jobs.store import JobStore
from memory.setup import EXTRACTION as EXTRACTION
from memory.setup import LazyMemory

if TYPE_CHECKING:
    from worker.durable import DurableJournal

RECALLED, UNAVAILABLE = "memory.recalled", "memory.unavailable"
AWAY_MS = 60_000
"""After this time, a job that can do nothing without memory looks whether it is back."""


class PutOff(Exception):
    """The job cannot go on before some milliseconds are over, and holds no worker meanwhile."""

    def __init__(self, why: str, ms: int) -> None:
        super().__init__(why)
        self.ms = ms


class NothingToDo(Exception):
    """The job is done, without a model's being asked; the text is its answer."""


class JobMemory(Protocol):
    """Long-term memory as one attempt of a job has it."""

    async def opening(self, lines: list[Line]) -> list[Json]:
        """The text blocks to show before the job's input, the same on every attempt; `lines` are the journal's.

        Raises PutOff and NothingToDo; EmbeddingError when a job that is nothing without memory cannot go on.
        """
        ...

    def serving(self) -> AbstractContextManager[object]:
        """Within it, the job's memory tools work."""
        ...

    async def learn(self) -> Json:
        """Sees to it that the job is learnt from, whose end is to be written; what that should say of it."""
        ...


class WithoutMemory:
    """The memory of a job that has none."""

    async def opening(self, lines: list[Line]) -> list[Json]:
        return []

    def serving(self) -> AbstractContextManager[object]:
        return nullcontext()

    async def learn(self) -> Json:
        return {}


WITHOUT_MEMORY = WithoutMemory()


def memory_of(
    job: Job,
    agent: Agent,
    memory: LazyMemory | None,
    store: JobStore,
    journal: DurableJournal,
    on_away: Callable[[], None],
) -> JobMemory:
    """The memory of a job. `on_away` is called when it cannot go on, for its memory went away under it."""
    if memory is None or job.spec.user is None:
        return WITHOUT_MEMORY
    if job.spec.agent == EXTRACTION:
        from worker.extraction import Extraction

        return Extraction(job, memory, store, journal, on_away)
    if agent.user_memory is None:
        return WITHOUT_MEMORY
    from worker.recollection import Recollection

    return Recollection(job, agent, agent.user_memory, memory, store, journal)
