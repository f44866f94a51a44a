"""The one query of a recall: BM25 and, with an embedder, similarity, both under the scope, times recency.

The weights were measured: similarity alone misses names and numbers, BM25 alone misses paraphrases. Recency as a factor
near 1 puts the newer of two conflicting facts first; as a term of the sum it would bury good answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qdrant_client import models

from memory.points import Kind, Memory, Recalled, Why, date
from memory.scope import Scope, empty, with_id

WORDS = "text"
"""The name of the sparse vector."""
OF_COSINE = 0.4
OF_WORDS = 0.6
HALF_WORDS = 6.0
"""The BM25 score that counts for half of what words can."""
FRESH = 0.2
"""What a memory that was never said again loses at most."""
HALF_LIFE_SECONDS = 30 * 86_400.0
LEAST_CANDIDATES = 64
SPARE = 16
"""Further hits that are asked for, so that ties at the end are broken here, by a rule."""
SCORES = {"$score[0]": 0.0, "$score[1]": 0.0, "last_confirmed_at": "1970-01-01T00:00:00Z"}
"""What a formula takes for a value that a point does not have; without it, the whole query would fail."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for, and where. `dense` is the vector of the embedder called `embedder`."""

    scope: Scope
    words: models.SparseVector
    now: datetime
    kinds: tuple[Kind, ...] = ()
    dense: Sequence[float] | None = None
    embedder: str = ""

    def recall(self, k: int) -> dict[str, Any]:
        """The arguments of `query_points` that find the best `k`."""
        candidates = max(LEAST_CANDIDATES, 4 * k)
        prefetch = [
            models.Prefetch(
                query=query, using=using, filter=self._current(), params=params, limit=candidates
            )
            for query, using, params in self._searches()
        ]  # fmt: skip
        return {
            "prefetch": prefetch,
            "query": models.FormulaQuery(formula=self._formula(), defaults=SCORES),
            "limit": k + SPARE,
            "with_payload": True,
        }

    def parts(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The arguments of `query_points` for each part of the score, over these memories alone."""
        few = self._current(with_id(*ids))
        return [
            {"query": query, "using": using, "query_filter": few, "search_params": params, "limit": len(ids)}
            for query, using, params in self._searches()
        ]

    def recency(self, memory: Memory) -> float:
        """The factor by which a memory's age lowers its score, from 0.8 to 1."""
        age = max(0.0, (self.now - memory.last_confirmed_at).total_seconds())
        return float(1 - FRESH + FRESH * 0.5 ** (age / HALF_LIFE_SECONDS))

    def why(self, memory: Memory, bm25: float, cosine: float) -> Why:
        """The parts of a memory's score."""
        words = OF_WORDS * bm25 / (bm25 + HALF_WORDS)
        return Why(bm25=bm25, words=words, cosine=OF_COSINE * cosine, recency=self.recency(memory))

    def _searches(self) -> list[tuple[Any, str, models.SearchParams | None]]:
        # What is rare is rare in the scope: another tenant's texts must not move a score.
        idf = models.SearchParams(idf=models.IdfCorpusParams(corpus=self.scope.within()))
        found: list[tuple[Any, str, models.SearchParams | None]] = [(self.words, WORDS, idf)]
        if self.dense is not None:
            found.append((list(self.dense), self.embedder, None))
        return found

    def _current(self, *also: models.Condition) -> models.Filter:
        return current(self.scope, self.now, *of_kinds(self.kinds), *also)

    def _formula(self) -> models.Expression:
        words = models.DivExpression(
            div=models.DivParams(
                left="$score[0]", right=models.SumExpression(sum=["$score[0]", HALF_WORDS]), by_zero_default=0.0
            )
        )
        match: models.Expression = models.MultExpression(mult=[OF_WORDS, words])
        if self.dense is not None:
            match = models.SumExpression(sum=[match, models.MultExpression(mult=[OF_COSINE, "$score[1]"])])
        decay = models.ExpDecayExpression(
            exp_decay=models.DecayParamsExpression(
                x=models.DatetimeKeyExpression(datetime_key="last_confirmed_at"),
                target=models.DatetimeExpression(datetime=str(date(self.now))),
                scale=HALF_LIFE_SECONDS,
                midpoint=0.5,
            )
        )
        recency = models.SumExpression(sum=[1 - FRESH, models.MultExpression(mult=[FRESH, decay])])
        return models.MultExpression(mult=[match, recency])


def of_kinds(kinds: Sequence[Kind]) -> list[models.Condition]:
    """That a memory is of one of these kinds; nothing to ask for when there are none."""
    return [models.FieldCondition(key="kind", match=models.MatchAny(any=[*map(str, kinds)]))] if kinds else []


def current(scope: Scope, now: datetime, *also: models.Condition) -> models.Filter:
    """What holds now: not superseded, not expired."""
    expired = models.FieldCondition(key="expires_at", range=models.DatetimeRange(lte=now))
    return scope.within(empty("valid_to"), *also, without=(expired,))


def best(found: Sequence[Recalled], k: int) -> list[Recalled]:
    """The best `k`, ties by what was said last, and of a slot only the newest.

    A slot has two current facts only for the moment in which two writers meet.
    """
    newest: dict[tuple[Scope, str], Memory] = {}
    for each in found:
        memory = each.memory
        if memory.slot is not None:
            place = (memory.scope, memory.slot)
            newest[place] = max(memory, newest.get(place, memory), key=lambda one: one.order)
    kept = {memory.id for memory in newest.values()}
    left = [each for each in found if each.memory.slot is None or each.memory.id in kept]
    return sorted(left, key=lambda each: (each.score, *each.memory.order), reverse=True)[:k]
