"""Embedding models behind HTTP: any server with OpenAI's `/v1/embeddings`, and Voyage, which differs by one field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import httpx2

from memory.embedding.port import Purpose, Vectors
from memory.errors import EmbeddingError

TIMEOUT_SECONDS = 30.0
RETRYABLE = {408, 409, 429}
OPENAI_URL = "https://api.openai.com/v1"
VOYAGE_URL = "https://api.voyageai.com/v1"


class OpenAIEmbeddings:
    """A model of a server that speaks OpenAI's API: OpenAI, Ollama, vLLM, text-embeddings-inference.

    `base_url` ends before `/embeddings`, like "http://localhost:11434/v1"; `size` is how many numbers the model's
    vectors have.
    """

    PROVIDER: ClassVar[str] = "openai"

    def __init__(
        self, base_url: str, model: str, size: int, *, api_key: str | None = None, most_texts: int = 128
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._url = f"{base_url.rstrip('/')}/embeddings"
        self._client = httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_SECONDS)
        self._model = model
        self.name = f"{self.PROVIDER}-{model}"
        self.size = size
        self.most_texts = most_texts

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Vectors:
        """One request. Raises EmbeddingError."""
        try:
            answer = await self._client.post(self._url, json=self._body(list(texts), purpose))
        except httpx2.HTTPError as exc:
            never_sent = isinstance(exc, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise EmbeddingError(
                f"{self.name} at {self._url}: {type(exc).__name__} {exc}", retryable=True, billed=not never_sent
            ) from exc
        if answer.status_code != 200:
            raise EmbeddingError(
                f"{self.name} at {self._url} answered {answer.status_code}: {answer.text[:300]}",
                retryable=answer.status_code in RETRYABLE or answer.status_code >= 500,
                billed=False,
            )
        try:
            return _read(answer.json())
        except (KeyError, TypeError, ValueError) as exc:
            raise EmbeddingError(f"{self.name} at {self._url} gave no embeddings: {exc!r}", retryable=False) from exc

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    def _body(self, texts: list[str], purpose: Purpose) -> dict[str, Any]:
        return {"model": self._model, "input": texts, "encoding_format": "float"}


class VoyageEmbeddings(OpenAIEmbeddings):
    """A model of Voyage, which is told whether a text is a question."""

    PROVIDER: ClassVar[str] = "voyage"

    def __init__(
        self,
        model: str,
        size: int,
        *,
        api_key: str,
        base_url: str = VOYAGE_URL,
        most_texts: int = 128,
    ) -> None:
        super().__init__(base_url, model, size, api_key=api_key, most_texts=most_texts)

    def _body(self, texts: list[str], purpose: Purpose) -> dict[str, Any]:
        return {"model": self._model, "input": texts, "input_type": purpose, "output_dimension": self.size}


def _read(answer: Any) -> Vectors:
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    vectors = [[float(number) for number in row["embedding"]] for row in rows]
    if not all(math.isfinite(number) for vector in vectors for number in vector):
        raise ValueError("a number is not finite")
    tokens = (answer.get("usage") or {}).get("total_tokens")
    return Vectors(vectors, None if tokens is None else int(tokens))
