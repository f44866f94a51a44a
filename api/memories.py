"""What clients send about long-term memory, the shapes of the answers, and what its failures become."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller
from api.schemas import PRINTABLE, Strict, Time, Word
from jobs.errors import InvalidError, NotFoundError, UnavailableError
from memory.errors import (
    EmbeddingError,
    InvalidMemoryError,
    MemoryNotFoundError,
    MemoryUnavailableError,
    NoMemoryError,
    ScopeError,
)

if TYPE_CHECKING:
    from memory.longterm import LongTermMemory

log = structlog.get_logger(__name__)

Kind = Literal["semantic", "episodic"]
"""As `memory.points` has them, which takes a second to import."""


class MemoryIn(Strict):
    """Something to remember of a user. Of a slot, one memory is current: what was said last."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user": "u1", "text": "Lives in Oslo.", "slot": "user.city"}]}
    )

    user: Word
    text: Annotated[str, Field(min_length=1, max_length=4000)]
    kind: Kind = "semantic"
    slot: Annotated[str, Field(min_length=1, max_length=128, pattern=PRINTABLE)] | None = None
    importance: Annotated[float, Field(ge=0, le=1)] = 0.5
    expires_at: Time | None = None


class SourceView(BaseModel):
    """Where a memory came from: a job, and the first and last entry of its journal that say so."""

    job: str
    seq_from: str | None
    seq_to: str | None


class MemoryView(BaseModel):
    """Something that is remembered of a user, and perhaps for one agent or session alone."""

    id: str
    object: Literal["memory"]
    user: str
    agent: str | None
    session: str | None
    kind: Kind
    slot: str | None
    text: str
    keywords: list[str]
    importance: float
    created_at: str
    last_confirmed_at: str = Field(description="When it was last said.")
    event_at: str | None
    valid_to: str | None = Field(description="When it ceased to hold; null while it is current.")
    superseded_by: str | None
    expires_at: str | None
    uses: int
    source: SourceView | None


class WhyView(BaseModel):
    """The parts of a score, which is `(words + cosine) × recency`; `bm25` is what `words` is made of."""

    bm25: float
    words: float
    cosine: float
    recency: float


class FoundView(MemoryView):
    """A memory of a list; how well it fits is there when a `query` was asked, and why with `explain`."""

    score: float | None = None
    why: WhyView | None = None


class ForgottenView(BaseModel):
    """What was deleted of a user."""

    forgotten: int = Field(description="Memories.")
    sessions: int
    jobs: int
    unfinished: int = Field(description="Jobs that have not ended, and are to be asked for again when they have.")


@contextmanager
def failures() -> Iterator[None]:
    """Makes memory's failures InvalidError, NotFoundError and UnavailableError."""
    try:
        yield
    except (InvalidMemoryError, ScopeError) as exc:
        raise InvalidError(str(exc)) from exc
    except MemoryNotFoundError as exc:
        raise NotFoundError("there is no such memory", code="memory_not_found") from exc
    except NoMemoryError as exc:
        detail = "this platform has no long-term memory: NIGHTSHIFT_QDRANT_URL is not set"
        raise UnavailableError(detail, code="memory_not_configured") from exc
    except (MemoryUnavailableError, EmbeddingError) as exc:
        log.warning("memory is away", error=str(exc))
        raise UnavailableError("long-term memory is away; try again", code="memory_unavailable") from exc


@asynccontextmanager
async def opened(caller: Caller) -> AsyncIterator[LongTermMemory]:
    """Long-term memory, within `failures`."""
    with failures():
        yield await caller.services.memory.get()
