"""BM25 as sparse vectors, computed here: no model, no download, and the token ids that a Qdrant server would give."""

from __future__ import annotations

import functools

import qdrant_edge
from qdrant_client import models


@functools.cache
def _model() -> qdrant_edge.Bm25:
    return qdrant_edge.Bm25()


def of_document(text: str) -> models.SparseVector:
    """The vector of a text that is kept: its stems, weighted. Empty for a text of stop words alone."""
    return _plain(_model().embed_document(text))


def of_query(text: str) -> models.SparseVector:
    """The vector of a question."""
    return _plain(_model().embed_query(text))


def _plain(vector: qdrant_edge.SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=list(vector.indices), values=list(vector.values))
