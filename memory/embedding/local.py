"""Embedding models that run in this process, by libraries that are extras; both fetch their model on first use."""

from __future__ import annotations

import asyncio
import functools
import importlib
from collections.abc import Sequence
from typing import Any

from memory.embedding.port import Purpose, Vectors
from memory.errors import EmbeddingError


class FastEmbedEmbeddings:
    """A model of fastembed, on ONNX. `pip install nightshift[fastembed]`."""

    most_texts = 256

    def __init__(self, model: str = "BAAI/bge-small-en-v1.5", size: int = 384) -> None:
        self._model = model
        self.name = f"fastembed-{model}"
        self.size = size

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Vectors:
        """In a thread. Raises EmbeddingError when fastembed is missing or has no such model."""
        return await asyncio.to_thread(self._embed, list(texts), purpose)

    async def aclose(self) -> None:
        """Holds nothing that outlives it."""

    def _embed(self, texts: list[str], purpose: Purpose) -> Vectors:
        embed = self._loaded.query_embed if purpose == "query" else self._loaded.passage_embed
        return Vectors([[float(number) for number in vector] for vector in embed(texts)])

    @functools.cached_property
    def _loaded(self) -> Any:
        return _load("fastembed", "fastembed", "TextEmbedding", self._model)


class SentenceTransformerEmbeddings:
    """A model of sentence-transformers, on PyTorch. `pip install nightshift[sentence-transformers]`."""

    most_texts = 256

    def __init__(self, model: str = "sentence-transformers/all-MiniLM-L6-v2", size: int = 384) -> None:
        self._model = model
        self.name = f"sentence-transformers-{model}"
        self.size = size

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Vectors:
        """In a thread. Raises EmbeddingError when the library is missing or has no such model."""
        return await asyncio.to_thread(self._embed, list(texts), purpose)

    async def aclose(self) -> None:
        """Holds nothing that outlives it."""

    def _embed(self, texts: list[str], purpose: Purpose) -> Vectors:
        encode = self._loaded.encode_query if purpose == "query" else self._loaded.encode_document
        return Vectors([[float(number) for number in vector] for vector in encode(texts)])

    @functools.cached_property
    def _loaded(self) -> Any:
        return _load("sentence_transformers", "sentence-transformers", "SentenceTransformer", self._model)


def _load(module: str, extra: str, name: str, model: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)(model)
    except ImportError as exc:
        raise EmbeddingError(
            f"{module} is not installed; run `pip install nightshift[{extra}]`", retryable=False
        ) from exc
    except Exception as exc:  # both raise what their many libraries raise
        raise EmbeddingError(f"{extra} could not load {model}: {exc}", retryable=True) from exc
