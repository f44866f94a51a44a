"""Long-term memory as operators look at it: straight into Qdrant, by the settings of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cli.errors import CliError, UnreachableError, UsageError
from jobs.settings import MemorySettings, without_secrets
from memory.errors import EmbeddingError, MemoryUnavailableError
from memory.setup import make_memory

if TYPE_CHECKING:
    from memory.store import MemoryStore, StoreFacts

REFUSALS = (401, 403)


class EmbedderError(CliError):
    """The embedder failed."""


async def facts(settings: MemorySettings) -> StoreFacts:
    """What there is. Raises CliError."""
    async with _store(settings) as store:
        return await store.facts()


async def reembed(settings: MemorySettings, say: Callable[[str], None]) -> int:
    """Gives every memory a vector of the embedder, saying how far it is; how many were given one. Raises CliError."""
    if settings.embedder is None:
        raise UsageError("NIGHTSHIFT_EMBEDDER is not set: there is nothing to make vectors with")
    async with _store(settings) as store:
        await store.open()
        return await store.reembed(lambda done, of: say(f"{done:,} of {of:,}"))


@asynccontextmanager
async def _store(settings: MemorySettings) -> AsyncIterator[MemoryStore]:
    memory = make_memory(settings)
    if memory is None:
        raise UsageError(
            "no Qdrant is known: name one in NIGHTSHIFT_QDRANT_URL, or the --data-dir of a platform that runs"
        )
    try:
        yield memory.store
    except MemoryUnavailableError as exc:
        where = without_secrets(settings.qdrant_url or "")
        if exc.status in REFUSALS:
            raise UsageError(f"Qdrant at {where} refuses the key in NIGHTSHIFT_QDRANT_API_KEY") from exc
        raise UnreachableError(f"Qdrant at {where}: {exc}") from exc
    except EmbeddingError as exc:
        raise EmbedderError(f"{exc}; run it again to go on") from exc
    finally:
        await memory.aclose()
