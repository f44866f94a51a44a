"""What memory raises.

MemoryLayerError
├── ScopeError                a scope that names nobody
├── InvalidMemoryError        a text, a slot, a date that cannot be kept
├── MemoryNotFoundError       no such memory in this scope; another scope's is not told apart from none
├── MemoryUnavailableError    Qdrant is away, or refused: go on without memory, or try again later
│   └── NoMemoryError         none is set up here
├── EmbeddingError            the embedder gave no vectors, or wrong ones
└── ExtractionError           a reply that is no list of operations on what was shown
"""

from __future__ import annotations


class MemoryLayerError(Exception):
    """Base of every error that memory raises."""


class ScopeError(MemoryLayerError, ValueError):
    """A part of a scope is missing or is no sound text; the message names it."""


class InvalidMemoryError(MemoryLayerError, ValueError):
    """Something that cannot be remembered; the message names the field, what it holds and what is accepted."""


class MemoryNotFoundError(MemoryLayerError, LookupError):
    """The scope holds no memory of this id."""

    def __init__(self, memory_id: str) -> None:
        super().__init__(f"there is no memory {memory_id} in this scope")
        self.memory_id = memory_id


class MemoryUnavailableError(MemoryLayerError):
    """Qdrant did not answer, or with an error. `status` is that of its answer, None without one."""

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(f"memory is not available: {detail}")
        self.status = status


class NoMemoryError(MemoryUnavailableError):
    """The settings name no Qdrant."""

    def __init__(self) -> None:
        super().__init__("NIGHTSHIFT_QDRANT_URL is not set")


class EmbeddingError(MemoryLayerError):
    """An embedder failed. `retryable`: the same call may succeed later; `billed`: it may have to be paid anyway."""

    def __init__(self, detail: str, *, retryable: bool, billed: bool = True) -> None:
        super().__init__(detail)
        self.retryable = retryable
        self.billed = billed


class ExtractionError(MemoryLayerError, ValueError):
    """A model's reply that cannot be applied; nothing of it may be."""
