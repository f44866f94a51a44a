"""Embeddings in the account of the job that they were made for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from agent_core import UserMemory
from agent_core.testing import says
from agent_core.types import Budget, Json, micros
from jobs.audit import audit
from jobs.journal import ledger_rows
from jobs.kill_switch import KillSwitches
from jobs.settings import load
from jobs.stats import Stats
from memory.embedding.http import OpenAIEmbeddings
from memory.embedding.port import Embedder, free
from memory.errors import EmbeddingError
from memory.setup import LazyMemory
from tests.memory.embedded_server import EmbeddedServer
from tests.memory.embedding_server import EmbeddingServer, embedding_server
from tests.worker.conftest import TENANT, Bench
from tests.worker.remembering import Remembering, remembering_agent
from worker.durable import DurableJournal, LiveText
from worker.embedding import AROUND, EmbeddingPrices, charge_to, make_charge
from worker.errors import StartError
from worker.settings import Settings

MODEL = "text-embedding-3-large"
"""0.13 USD for a million tokens."""
TEXT = "Where does Ada live, and since when?"
BOUND = len(TEXT) + AROUND
OPENAI = {"EMBEDDER": "openai", "EMBEDDER_MODEL": MODEL, "EMBEDDER_SIZE": "2"}


@dataclass
class Asking:
    """A job that runs, and an embedder whose calls it may pay for."""

    bench: Bench
    job_id: str
    journal: DurableJournal
    stats: Stats
    server: EmbeddingServer
    embedder: Embedder

    async def ask(self, text: str = TEXT) -> None:
        charge_to(self.journal)
        await self.embedder.embed([text], "query")

    async def rows(self) -> list[Json]:
        return ledger_rows(self.job_id, await self.bench.store.lines(self.job_id))

    async def exact(self) -> None:
        books = await audit(self.bench.store.link, TENANT)
        assert books.exact, books.differences


def settings_of(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    return load(Settings)


@pytest.fixture
async def server() -> AsyncIterator[EmbeddingServer]:
    async with embedding_server() as made:
        yield made


async def asking(bench: Bench, server: EmbeddingServer, settings: Settings, budget: Budget | None = None) -> Asking:
    job_id = await bench.submit(budget=budget, user="u")
    claim = await bench.claim()
    assert claim.job is not None
    stats = Stats()
    live = LiveText(bench.store, claim.job)
    journal = DurableJournal(bench.store, claim.job, claim.token, stats, live, on_cancel=lambda: None)
    embedder = Embedder(OpenAIEmbeddings(server.url, MODEL, 2), make_charge(settings))
    return Asking(bench, job_id, journal, stats, server, embedder)


@pytest.fixture
async def job(bench: Bench, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Asking]:
    made = await asking(bench, server, settings_of(monkeypatch, **OPENAI))
    yield made
    await made.embedder.aclose()


async def test_a_call_has_a_row_with_its_price_and_counts_in_every_total(job: Asking) -> None:
    await job.ask()
    [row] = await job.rows()
    assert {name: row[name] for name in ("kind", "role", "model", "usage", "tokens", "reason", "attempt")} == {
        "kind": "embedding", "role": "embedding", "model": MODEL, "usage": {"input_tokens": 7}, "tokens": 7,
        "reason": "settled", "attempt": 1,
    }  # fmt: skip
    assert row["price_version"].startswith("genai-prices/")
    assert micros(row["settled_usd"]) == 1, "7 tokens at 0.13 for a million, rounded up"
    assert micros(row["reserved_usd"]) == -(-BOUND * 13 // 100)
    counters = (await job.bench.job(job.job_id)).counters
    assert (counters["cost"], counters["reserved"], counters["input_tokens"], counters["model_calls"]) == (1, 0, 7, 0)
    await job.exact()
    counted = job.stats.take()
    assert counted[f"tokens_total|{MODEL}|input"] == 7
    assert counted[f"cost_usd_total|x|{MODEL}"] == pytest.approx(1e-6)


async def test_what_the_cache_has_costs_nothing(job: Asking) -> None:
    for _ in range(3):
        await job.ask()
    assert len(await job.rows()) == len(job.server.asked) == 1


async def test_calls_at_once_are_paid_by_the_jobs_that_make_them(
    job: Asking, bench: Bench, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await asking(bench, server, settings_of(monkeypatch, **OPENAI))
    other.embedder = job.embedder
    await asyncio.gather(*(each.ask(f"{each.job_id} {number}") for number in range(4) for each in (job, other)))
    assert [len(await each.rows()) for each in (job, other)] == [4, 4]
    await job.embedder.embed(["nobody's"], "query")
    assert [len(await each.rows()) for each in (job, other)] == [4, 4], "a call for no job has no row"
    await job.exact()


async def test_a_model_that_reports_no_usage_is_settled_at_the_worst_case(job: Asking) -> None:
    job.server.answer = {"data": [{"index": 0, "embedding": [1.0, 0.0]}]}
    await job.ask()
    [row] = await job.rows()
    assert (row["reason"], row["usage"], row["tokens"]) == ("worst_case", None, BOUND)
    assert row["settled_usd"] == row["reserved_usd"]
    await job.exact()


@pytest.mark.parametrize(
    ("status", "answer", "reason"), [(500, {}, "released"), (401, {}, "released"), (200, {}, "worst_case")]
)
async def test_a_call_that_failed_costs_only_what_it_may_have_cost(
    job: Asking, status: int, answer: Json, reason: str
) -> None:
    job.server.status, job.server.answer = status, answer
    with pytest.raises(EmbeddingError):
        await job.ask()
    [row] = await job.rows()
    assert row["reason"] == reason
    assert (row["settled_usd"] == "0") is (reason == "released")
    await job.exact()


async def test_without_room_in_the_budget_the_model_is_not_called(
    bench: Bench, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = await asking(bench, server, settings_of(monkeypatch, **OPENAI), Budget(usd="0.000003"))
    with pytest.raises(EmbeddingError, match=f"{MODEL} was not called") as failed:
        await poor.ask()
    assert not failed.value.retryable
    assert (server.asked, await poor.rows()) == ([], [])
    await poor.exact()


async def test_under_a_kill_switch_the_model_is_not_called(job: Asking) -> None:
    await KillSwitches(job.bench.store.link).turn_on("global", by="key_1")
    with pytest.raises(EmbeddingError, match="kill switch"):
        await job.ask()
    assert (job.server.asked, await job.rows()) == ([], [])


async def test_a_call_whose_worker_dies_is_settled_at_the_worst_case_with_its_lease(
    bench: Bench, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await bench.submit()
    claim = await bench.claim()
    assert claim.job is not None
    live = LiveText(bench.store, claim.job)
    journal = DurableJournal(bench.store, claim.job, claim.token, Stats(), live, on_cancel=lambda: None)
    settings = settings_of(monkeypatch, **OPENAI)
    embedder = Embedder(OpenAIEmbeddings(server.url, MODEL, 2), make_charge(settings))
    server.may_answer.clear()
    charge_to(journal)
    calling = asyncio.create_task(embedder.embed([TEXT], "query"))
    await server.asking.wait()
    calling.cancel()
    await asyncio.wait([calling])
    [row] = ledger_rows(job_id, await bench.store.lines(job_id))
    assert (row["reason"], row["settled_usd"]) == ("reserved", None)
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    [row] = ledger_rows(job_id, await bench.store.lines(job_id))
    assert (row["kind"], row["reason"], row["settled_usd"]) == ("embedding", "worst_case", row["reserved_usd"])
    assert (await bench.job(job_id)).counters["model_calls"] == 0
    books = await audit(bench.store.link, TENANT)
    assert books.exact, books.differences
    await embedder.aclose()


async def test_a_job_pays_for_the_embedding_of_its_own_recall(
    bench: Bench, embedded: EmbeddedServer, server: EmbeddingServer
) -> None:
    values: Json = {"qdrant_url": embedded.url, "qdrant_api_key": SecretStr(embedded.api_key)}
    values |= {"embedder": "openai", "embedder_model": MODEL, "embedder_size": 2, "embedder_url": server.url}
    settings = Settings(**values)
    lazy = LazyMemory(settings, make_charge(settings))
    ada = Remembering(bench, lazy, remembering_agent(memory=UserMemory(learns=False)))
    await ada.memory()
    job_id = await ada.submit(TEXT)
    assert (await ada.run([says("Nobody knows.")])).status == "completed"
    rows = ledger_rows(job_id, await bench.store.lines(job_id))
    assert [(row["kind"], row["reason"]) for row in rows] == [("embedding", "settled"), ("model", "settled")]
    assert [body["input"] for body, _ in server.asked] == [[TEXT]]
    books = await audit(bench.store.link, TENANT)
    assert books.exact, books.differences
    await lazy.aclose()


def test_a_price_of_ones_own_goes_before_the_published_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text('{"nomic-embed-text": {"input": 0.5, "output": 0}}')
    settings = settings_of(monkeypatch, **{**OPENAI, "EMBEDDER_MODEL": "nomic-embed-text", "PRICES": str(file)})
    assert EmbeddingPrices(settings.price_list, "nomic-embed-text", "openai").micros(1_000_000) == 500_000
    assert make_charge(settings) is not free


def test_a_worker_does_not_start_with_an_embedder_of_unknown_price(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, **{**OPENAI, "EMBEDDER_MODEL": "nomic-embed-text"})
    with pytest.raises(StartError, match=r"NIGHTSHIFT_EMBEDDER_MODEL is 'nomic-embed-text': .*NIGHTSHIFT_PRICES"):
        make_charge(settings)


def test_voyage_has_published_prices_and_what_runs_in_the_process_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert make_charge(load(Settings)) is free
    voyage = {"EMBEDDER": "voyage", "EMBEDDER_MODEL": "voyage-4", "EMBEDDER_SIZE": "1024", "EMBEDDER_API_KEY": "k"}
    assert make_charge(settings_of(monkeypatch, **voyage)) is not free
    monkeypatch.setattr("jobs.settings.find_spec", lambda name: name)
    for name in voyage:
        monkeypatch.delenv(f"NIGHTSHIFT_{name}")
    assert make_charge(settings_of(monkeypatch, EMBEDDER="fastembed")) is free
