"""Long-term memory as the settings of a process have it. Its libraries are imported when it is made, and not before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import SecretStr

from memory.embedding.port import Charge, Embedder, EmbeddingModel, free
from memory.errors import NoMemoryError

if TYPE_CHECKING:
    from memory.longterm import LongTermMemory

EXTRACTION = "memory-extraction"
"""The built-in agent whose jobs look for lasting facts in what other jobs were told."""


class Settings(Protocol):
    """What this reads of a process's settings, which say what fits together."""

    @property
    def qdrant_url(self) -> str | None: ...
    @property
    def qdrant_api_key(self) -> SecretStr | None: ...
    @property
    def embedder(self) -> Literal["openai", "voyage", "fastembed", "sentence-transformers"] | None: ...
    @property
    def embedder_model(self) -> str | None: ...
    @property
    def embedder_size(self) -> int | None: ...
    @property
    def embedder_url(self) -> str | None: ...
    @property
    def embedder_api_key(self) -> SecretStr | None: ...


class LazyMemory:
    """The memory that settings name: made and opened by the first who wants it, without holding up the loop."""

    def __init__(self, settings: Settings, charge: Charge = free) -> None:
        self._settings = settings
        self._charge = charge
        self._made: LongTermMemory | None = None
        self._opening: asyncio.Task[LongTermMemory] | None = None

    @property
    def is_set_up(self) -> bool:
        """Whether the settings name a Qdrant."""
        return self._settings.qdrant_url is not None

    async def get(self) -> LongTermMemory:
        """Raises NoMemoryError when none is set up, MemoryUnavailableError when Qdrant is away; ask again later.

        A Qdrant that has lost its data is opened anew, and begins empty.
        """
        if not self.is_set_up:
            raise NoMemoryError
        if self._opening is None or (self._opening.done() and not self._is_open(self._opening)):
            self._opening = asyncio.create_task(self._open(), name="open memory")
        return await asyncio.shield(self._opening)

    @staticmethod
    def _is_open(opening: asyncio.Task[LongTermMemory]) -> bool:
        return opening.exception() is None and not opening.result().store.lost

    async def aclose(self) -> None:
        """Closes it if there was a use."""
        if self._opening is not None:
            await asyncio.wait({self._opening})
        if self._made is not None:
            await self._made.aclose()

    async def _open(self) -> LongTermMemory:
        if self._made is None:
            self._made = await asyncio.to_thread(make_memory, self._settings, self._charge)
        assert self._made is not None  # `is_set_up`
        await self._made.open()
        return self._made


def make_memory(settings: Settings, charge: Charge = free) -> LongTermMemory | None:
    """The memory that the settings name, not yet open; None when they name no Qdrant. `charge`: see Embedder.

    Its first call in a process imports Qdrant's client, which takes a second or two of CPU time: call it in a thread.
    """
    if settings.qdrant_url is None:
        return None
    from memory.client import connect
    from memory.longterm import LongTermMemory

    model = _model(settings)
    embedder = None if model is None else Embedder(model, charge)
    return LongTermMemory(connect(settings.qdrant_url, _secret(settings.qdrant_api_key)), embedder)


def _model(settings: Settings) -> EmbeddingModel | None:
    from memory.embedding import http, local

    name, size, key = settings.embedder_model or "", settings.embedder_size or 0, _secret(settings.embedder_api_key)
    match settings.embedder:
        case "openai":
            return http.OpenAIEmbeddings(settings.embedder_url or http.OPENAI_URL, name, size, api_key=key)
        case "voyage":
            return http.VoyageEmbeddings(
                name, size, api_key=key or "", base_url=settings.embedder_url or http.VOYAGE_URL
            )
        case "fastembed":
            return local.FastEmbedEmbeddings(name, size) if name else local.FastEmbedEmbeddings()
        case "sentence-transformers":
            return local.SentenceTransformerEmbeddings(name, size) if name else local.SentenceTransformerEmbeddings()
    return None


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
