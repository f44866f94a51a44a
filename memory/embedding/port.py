"""What memory asks of an embedder, and what any embedder gets from here: batches, a cache, someone who pays."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

from memory.errors import EmbeddingError

Purpose = Literal["document", "query"]
CACHED = 10_000
"""Vectors that are kept, of one process; one of 1,536 numbers takes some 50 KB."""


@dataclass(slots=True)
class EmbeddingCall:
    """A call of a model. `tokens` is what it used: None until the model has said so, and where it never does."""

    texts: Sequence[str]
    tokens: int | None = None


Charge = Callable[[EmbeddingCall], AbstractAsyncContextManager[None]]
"""Pays for a call: entered before it is made, left after it. Raises EmbeddingError for one that cannot be paid for."""


def free(call: EmbeddingCall) -> AbstractAsyncContextManager[None]:
    """Nobody pays."""
    return nullcontext()


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
    """An embedding model behind a cache by the texts' hashes. Each call is made within its `charge`."""

    def __init__(self, model: EmbeddingModel, charge: Charge = free, cached: int = CACHED) -> None:
        self._model = model
        self._charge = charge
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
        call = EmbeddingCall(texts)
        async with self._charge(call):
            answer = await self._model.embed(texts, purpose)
            call.tokens = answer.tokens
        sizes = {len(vector) for vector in answer.vectors}
        if len(answer.vectors) != len(texts) or sizes - {self.size}:
            raise EmbeddingError(
                f"{self.name} gave {len(answer.vectors)} vectors of {sorted(sizes)} numbers for {len(texts)} texts; "
                f"expected {len(texts)} of {self.size}",
                retryable=False,
            )
        return answer.vectors
