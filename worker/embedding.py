"""What embeddings cost: each call for a job is reserved and settled in the job's account, as a call of its model is."""

from __future__ import annotations

import contextvars
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import ROUND_CEILING
from typing import Literal

from agent_core.errors import BudgetError, KilledError, UnknownPriceError
from agent_core.pricing import Prices
from agent_core.types import Json
from jobs.money import EMBEDDING, Money
from jobs.settings import MemorySettings
from memory.embedding.port import Charge, EmbeddingCall, free
from memory.errors import EmbeddingError
from worker.durable import DurableJournal
from worker.errors import StartError

PROVIDERS = {"openai": "openai", "voyage": "voyageai"}
"""Embedders that are paid for, as genai-prices calls them; the others run in the process."""
AROUND = 8
"""Tokens that a model puts around a text, at most. Of the text itself, none has less than a byte."""
_payer: contextvars.ContextVar[DurableJournal | None] = contextvars.ContextVar("payer_of_embeddings", default=None)


def charge_to(journal: DurableJournal) -> None:
    """From now on, embeddings for the running task, which is an attempt's, are charged to the journal's job."""
    _payer.set(journal)


def make_charge(settings: MemorySettings) -> Charge:
    """Who pays for the embedder of the settings. Raises StartError when nobody knows its price."""
    if settings.embedder not in PROVIDERS:
        return free
    prices = EmbeddingPrices(settings.price_list, settings.embedder_model or "", PROVIDERS[settings.embedder])
    try:
        prices.micros(0)
    except UnknownPriceError as exc:
        raise StartError(f"NIGHTSHIFT_EMBEDDER_MODEL is {prices.model!r}: {exc}") from exc
    return prices.charge


class EmbeddingPrices:
    """The prices of one embedding model."""

    def __init__(self, prices: Prices, model: str, provider: str) -> None:
        self.model = model
        self._prices = prices
        self._provider = provider

    def micros(self, tokens: int) -> int:
        """What reading so many tokens costs, in micro-dollars. Raises UnknownPriceError."""
        amount = self._prices.embedding_rate(self.model, self._provider) * tokens
        return int(amount.to_integral_value(ROUND_CEILING))

    @asynccontextmanager
    async def charge(self, call: EmbeddingCall) -> AsyncIterator[None]:
        """See `Charge`. A call for no job is free; one that is cancelled is settled when its attempt ends."""
        journal = _payer.get()
        if journal is None:
            yield
            return
        about = await self._reserve(journal, sum(len(text.encode("utf-8", "replace")) + AROUND for text in call.texts))
        try:
            yield
        except EmbeddingError as exc:
            await self._settle(journal, about, None, "worst_case" if exc.billed else "released")
            raise
        await self._settle(journal, about, call.tokens, "worst_case" if call.tokens is None else "settled")

    async def _reserve(self, journal: DurableJournal, tokens: int) -> Json:
        about = {
            "call_id": f"emb_{uuid.uuid4().hex}",
            "step": 0,
            "model": self.model,
            "role": EMBEDDING,
            "reserved": self.micros(tokens),
            "tokens": tokens,
            "price_version": self._prices.version,
        }
        try:
            await journal.append({}, [("embedding.started", about)], Money(reserve=[about]))
        except (BudgetError, KilledError) as exc:
            raise EmbeddingError(f"{self.model} was not called: {exc}", retryable=False, billed=False) from exc
        return about

    async def _settle(
        self,
        journal: DurableJournal,
        about: Json,
        tokens: int | None,
        reason: Literal["settled", "worst_case", "released"],
    ) -> None:
        settled = about["reserved"] if reason == "worst_case" else self.micros(tokens or 0)
        usage = None if tokens is None else {"input_tokens": tokens}
        line = {**about, "usage": usage, "settled": settled, "reason": reason}
        bill = {name: line[name] for name in ("call_id", "settled", "model", "role")} | {"counters": usage or {}}
        if reason != "worst_case":
            bill["tokens"] = tokens or 0
        await journal.append(usage or {}, [("embedding.completed", line)], Money(settle=[bill]))
        journal.spent(self.model, settled, usage)
