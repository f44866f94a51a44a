"""What memory asks of an embedder, and what any embedder gets from here: batches, a cache, an account of its use."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from memory.errors import EmbeddingError

Purpose = Literal["document", "query"]
CACHED = 10_000
"""Vectors that are kept, of one process; one of 1,536 numbers takes some 50 KB."""


@dataclass(frozen=True, slots=True)
class EmbeddingUsage:
    """What a call of a model used. `tokens` is None where the model does not say."""

    model: str
    texts: int
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of some texts, in their order."""

    vectors: list[list[float]]
    tokens: int | None = None


class EmbeddingModel(Protocol):
    """One model. `name` says which it is wherever its vectors are kept, `size` how many numbers they have and
    `most_texts` how many texts it takes at once.
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def most_texts(self) -> int: ...

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Vectors:
        """The texts' vectors. Raises EmbeddingError."""
        ...

    async def aclose(self) -> None:
        """Lets go of what it holds."""
        ...


class Embedder:
    """An embedding model behind a cache by the texts' hashes. `on_usage` is told of each call, to be priced."""

    def __init__(
        self, model: EmbeddingModel, on_usage: Callable[[EmbeddingUsage], None] = lambda _: None, cached: int = CACHED
    ) -> None:
        self._model = model
        self._on_usage = on_usage
        self._cached = cached
        self._cache: OrderedDict[bytes, list[float]] = OrderedDict()

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        return self._model.size

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> list[list[float]]:
        """The texts' vectors, in their order; equal texts are embedded once. Raises EmbeddingError."""
        keys = [hashlib.sha256(f"{purpose}\0{text}".encode("utf-8", "replace")).digest() for text in texts]
        found = {key: self._cache[key] for key in keys if key in self._cache}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        pending = list(missing.items())
        for first in range(0, len(pending), self._model.most_texts):
            part = pending[first : first + self._model.most_texts]
            vectors = await self._call([text for _, text in part], purpose)
            found.update(zip((key for key, _ in part), vectors, strict=True))
        for key in dict.fromkeys(keys):
            self._cache[key] = found[key]
            self._cache.move_to_end(key)
        while len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return [found[key] for key in keys]

    def forget(self) -> None:
        """Empties the cache."""
        self._cache.clear()

    async def aclose(self) -> None:
        """Closes the model."""
        await self._model.aclose()

    async def _call(self, texts: list[str], purpose: Purpose) -> list[list[float]]:
        answer = await self._model.embed(texts, purpose)
        self._on_usage(EmbeddingUsage(self.name, len(texts), answer.tokens))
        sizes = {len(vector) for vector in answer.vectors}
        if len(answer.vectors) != len(texts) or sizes - {self.size}:
            raise EmbeddingError(
                f"{self.name} gave {len(answer.vectors)} vectors of {sorted(sizes)} numbers for {len(texts)} texts; "
                f"expected {len(texts)} of {self.size}",
                retryable=False,
            )
        return answer.vectors
