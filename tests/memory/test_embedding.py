"""Embedders: batches, cache and who pays, and the models behind HTTP against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from memory.embedding.http import OpenAIEmbeddings, VoyageEmbeddings
from memory.embedding.local import FastEmbedEmbeddings, SentenceTransformerEmbeddings
from memory.embedding.port import Embedder, EmbeddingCall
from memory.errors import EmbeddingError
from tests.memory.embedding_server import EmbeddingServer, embedding_server
from tests.memory.toy_embedder import ToyModel


@pytest.fixture
async def server() -> AsyncIterator[EmbeddingServer]:
    async with embedding_server() as made:
        yield made


class Payer:
    """Keeps the calls that it pays for, as they were when they ended, and what they raised."""

    def __init__(self) -> None:
        self.paid: list[tuple[int, int | None]] = []
        self.raised: list[Exception] = []

    @asynccontextmanager
    async def charge(self, call: EmbeddingCall) -> AsyncIterator[None]:
        try:
            yield
        except EmbeddingError as exc:
            self.raised.append(exc)
            raise
        self.paid.append((len(call.texts), call.tokens))


async def test_equal_texts_are_embedded_once_in_batches(server: EmbeddingServer) -> None:
    payer, model = Payer(), ToyModel()
    embedder = Embedder(model, payer.charge)
    texts = [f"city {number % 20}" for number in range(40)]
    vectors = await embedder.embed(texts, "document")
    assert [len(call) for call in model.calls] == [16, 4]
    assert [vectors[i] == vectors[i + 20] for i in range(20)] == [True] * 20
    assert payer.paid == [(16, 32), (4, 8)]
    await embedder.embed(texts, "query")
    assert len(model.calls) == 4, "a question's vector may be another than a document's"
    assert await embedder.embed([], "query") == []


async def test_the_cache_keeps_what_was_used_last() -> None:
    model = ToyModel()
    embedder = Embedder(model, cached=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await embedder.embed([text], "query")
    assert model.calls == [["a"], ["b"], ["c"], ["b"]]
    embedder.forget()
    await embedder.embed(["a"], "query")
    assert model.calls[-1] == ["a"]


async def test_an_openai_compatible_server(server: EmbeddingServer) -> None:
    payer = Payer()
    embedder = Embedder(OpenAIEmbeddings(server.url + "/", "small", 2, api_key="k"), payer.charge)
    assert await embedder.embed(["abc", "de"], "document") == [[3.0, 1.0], [2.0, 1.0]]
    assert server.asked == [({"model": "small", "input": ["abc", "de"], "encoding_format": "float"}, "Bearer k")]
    assert payer.paid == [(2, 7)]
    await embedder.aclose()


async def test_voyage_is_told_the_purpose(server: EmbeddingServer) -> None:
    model = VoyageEmbeddings("voyage-4", 2, api_key="k", base_url=server.url)
    await model.embed(["abc"], "query")
    [(body, _)] = server.asked
    assert body == {"model": "voyage-4", "input": ["abc"], "input_type": "query", "output_dimension": 2}
    await model.aclose()


@pytest.mark.parametrize(
    ("status", "answer", "retryable"),
    [
        (429, {}, True), (500, {}, True), (401, {}, False), (200, {}, False), (200, [], False),
        (200, {"data": [{"index": 0}]}, False), (200, {"data": [{"index": 0, "embedding": ["x"]}]}, False),
        (200, {"data": []}, False), (200, {"data": [{"index": 0, "embedding": [1.0]}]}, False),
        (200, {"data": [{"index": 0, "embedding": [float("nan"), 1.0]}]}, False),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_an_error(server: EmbeddingServer, status: int, answer, retryable: bool) -> None:
    server.status, server.answer = status, answer
    embedder = Embedder(OpenAIEmbeddings(server.url, "small", 2))
    with pytest.raises(EmbeddingError) as failed:
        await embedder.embed(["abc"], "query")
    assert failed.value.retryable is retryable
    assert failed.value.billed is (status == 200)
    server.status, server.answer = 200, None
    assert await embedder.embed(["abc"], "query") == [[3.0, 1.0]], "nothing wrong was cached"
    await embedder.aclose()


async def test_a_server_that_is_away(server: EmbeddingServer) -> None:
    model = OpenAIEmbeddings("http://127.0.0.1:9", "small", 2)
    with pytest.raises(EmbeddingError, match=r"127\.0\.0\.1:9") as failed:
        await model.embed(["abc"], "query")
    assert failed.value.retryable
    assert not failed.value.billed
    await model.aclose()


@pytest.mark.parametrize(
    ("model", "module", "extra"),
    [
        (FastEmbedEmbeddings(), "fastembed", "fastembed"),
        (SentenceTransformerEmbeddings(), "sentence_transformers", "sentence-transformers"),
    ],
)
async def test_a_library_that_is_missing_is_named(model, module, extra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(EmbeddingError, match=rf"nightshift\[{extra}\]"):
        await model.embed(["abc"], "query")
