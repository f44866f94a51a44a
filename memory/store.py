"""The collection that memories are in: its making, reads and writes of points, and the vectors of its embedder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.conversions.common_types import UpdateOperation

from memory import bm25
from memory.client import calling
from memory.embedding.port import Embedder
from memory.errors import MemoryNotFoundError, MemoryUnavailableError
from memory.ids import point_id, public_id, sound_id
from memory.points import INDEXES, Memory
from memory.ranking import WORDS
from memory.scope import Scope, with_id

COLLECTION = "nightshift_memory"
PAGE = 256
REEMBEDDED_AT_ONCE = 64
NO_COLLECTION = 404


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What there is. `waiting` counts memories without a vector of the embedder."""

    title: str
    version: str
    memories: int = 0
    waiting: int = 0


class MemoryStore:
    """Reads and writes points, under filters made by a Scope. Raises MemoryUnavailableError when Qdrant is away."""

    def __init__(self, client: AsyncQdrantClient, embedder: Embedder | None, collection: str) -> None:
        self.client = client
        self.embedder = embedder
        self._collection = collection
        self.lost = False
        """Whether Qdrant has the collection no more: it has to be opened again."""

    async def open(self) -> None:
        """Makes the collection and its indexes unless they are there; any number of processes may do so at once."""
        async with self._calling():
            if not await self.client.collection_exists(self._collection):
                sparse = {WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)}
                async with calling(tolerate=409):  # another process was first
                    await self.client.create_collection(
                        self._collection, vectors_config={}, sparse_vectors_config=sparse
                    )
            found = await self.client.get_collection(self._collection)
            for field, schema in INDEXES.items():
                if field not in found.payload_schema:
                    await self.client.create_payload_index(self._collection, field, schema)
            known = found.config.params.vectors or {}
            if self.embedder is not None and isinstance(known, dict) and self.embedder.name not in known:
                dense = models.DenseVectorConfig(size=self.embedder.size, distance=models.Distance.COSINE)
                await self.client.create_vector_name(
                    self._collection, self.embedder.name, models.DenseVectorNameConfig(dense=dense)
                )
        self.lost = False

    async def aclose(self) -> None:
        """Closes the connections to Qdrant and of the embedder."""
        await self.client.close()
        if self.embedder is not None:
            await self.embedder.aclose()

    # ---- reads

    async def facts(self) -> StoreFacts:
        """What this Qdrant is and holds of ours, without making anything."""
        async with self._calling():
            about = await self.client.info()
            if not await self.client.collection_exists(self._collection):
                return StoreFacts(about.title, about.version)
            vectors = (await self.client.get_collection(self._collection)).config.params.vectors
        total = waiting = await self.count(models.Filter())
        if self.embedder is None:
            waiting = 0
        elif isinstance(vectors, dict) and self.embedder.name in vectors:
            waiting = await self.count(_without(self.embedder.name))
        return StoreFacts(about.title, about.version, total, waiting)

    async def one(self, scope: Scope, memory_id: str) -> Memory:
        """A memory of the scope. Raises MemoryNotFoundError, and InvalidMemoryError for what is no id."""
        known = sound_id(memory_id)
        found = await self.scroll(scope.within(with_id(known)), 1)
        if not found:
            raise MemoryNotFoundError(known)
        return found[0]

    async def scroll(self, wanted: models.Filter, limit: int = PAGE, newest: bool = False) -> list[Memory]:
        """Up to `limit` memories that a filter lets through; in no order, or the newest."""
        order = models.OrderBy(key="created_at", direction=models.Direction.DESC) if newest else None
        async with self._calling():
            found, _ = await self.client.scroll(self._collection, wanted, limit=limit, order_by=order)
        return [memory_of(point) for point in found]

    async def all(self, wanted: models.Filter) -> AsyncIterator[Memory]:
        """Every memory that a filter lets through, page by page."""
        offset = None
        while True:
            async with self._calling():
                found, offset = await self.client.scroll(self._collection, wanted, limit=PAGE, offset=offset)
            for point in found:
                yield memory_of(point)
            if offset is None:
                return

    async def count(self, wanted: models.Filter) -> int:
        """How many memories a filter lets through."""
        async with self._calling():
            return (await self.client.count(self._collection, wanted, exact=True)).count

    async def query(self, **query: Any) -> list[models.ScoredPoint]:
        """The points that a query finds, best first."""
        async with self._calling():
            return (await self.client.query_points(self._collection, **query)).points

    # ---- writes

    async def insertion(self, memory: Memory) -> models.UpsertOperation:
        """The operation that adds a memory, unless there is one of its id."""
        vectors: dict[str, Any] = {WORDS: bm25.of_document(memory.searched)}
        if self.embedder is not None:
            [vectors[self.embedder.name]] = await self.embedder.embed([memory.searched], "document")
        point = models.PointStruct(id=point_id(memory.id), vector=vectors, payload=memory.to_payload())
        return models.UpsertOperation(
            upsert=models.PointsList(points=[point], update_mode=models.UpdateMode.INSERT_ONLY)
        )

    async def apply(self, *operations: UpdateOperation) -> None:
        """Applies operations in order, in one request."""
        async with self._calling():
            await self.client.batch_update_points(self._collection, operations)

    async def delete(self, wanted: models.Filter) -> None:
        """Deletes what a filter lets through, and empties this process's cache of vectors."""
        async with self._calling():
            await self.client.delete(self._collection, models.FilterSelector(filter=wanted))
        if self.embedder is not None:
            self.embedder.forget()

    async def prune(self, now: datetime, unused_since: datetime | None = None) -> int:
        """Deletes what has expired, and with `unused_since` what was last said before that time and never of use.

        For operators: it goes over all tenants. Returns how many memories there were.
        """
        old: list[models.Condition] = [until("expires_at", now)]
        if unused_since is not None:
            never = models.FieldCondition(key="uses", range=models.Range(lte=0))
            old.append(models.Filter(must=[until("last_confirmed_at", unused_since), never]))
        wanted = models.Filter(should=old)
        if there := await self.count(wanted):  # the embedded memory writes its files anew after a deletion
            await self.delete(wanted)
        return there

    @asynccontextmanager
    async def _calling(self, tolerate: int | None = None) -> AsyncIterator[None]:
        try:
            async with calling(tolerate):
                yield
        except MemoryUnavailableError as exc:
            self.lost = self.lost or exc.status == NO_COLLECTION
            raise

    # ---- a change of the embedder

    async def reembed(self, progress: Callable[[int, int], None] = lambda done, of: None) -> int:
        """Gives every memory that has none a vector of the current embedder; `progress` is told (done, of).

        For operators: it goes over all tenants. It may be stopped and begun again, and recall goes on meanwhile, by
        words alone where the vector is still missing. Returns how many it gave one.
        """
        embedder = self.embedder
        if embedder is None:
            return 0
        missing = _without(embedder.name)
        done, total = 0, await self.count(missing)
        while found := await self.scroll(missing, REEMBEDDED_AT_ONCE):
            vectors = await embedder.embed([each.searched for each in found], "document")
            points = [
                models.PointVectors(id=point_id(each.id), vector={embedder.name: vector})
                for each, vector in zip(found, vectors, strict=True)
            ]
            async with self._calling(tolerate=404):  # one was forgotten meanwhile; the others have theirs
                await self.client.update_vectors(self._collection, points)
            done += len(found)
            progress(done, max(done, total))
        return done

    async def drop_embedder(self, name: str) -> None:
        """Deletes the vectors of an embedder that is no longer used."""
        async with self._calling():
            await self.client.delete_vector_name(self._collection, name)


def _without(embedder: str) -> models.Filter:
    return models.Filter(must_not=[models.HasVectorCondition(has_vector=embedder)])


def until(field: str, moment: datetime) -> models.Condition:
    """That a time is not later."""
    return models.FieldCondition(key=field, range=models.DatetimeRange(lte=moment))


def set_payload(payload: dict[str, Any], wanted: models.Filter) -> models.SetPayloadOperation:
    """The operation that sets fields wherever a filter lets it, at the moment of the write."""
    return models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, filter=wanted))


def memory_of(point: models.Record | models.ScoredPoint) -> Memory:
    """The memory that a point is."""
    return Memory.from_payload(public_id(point.id), point.payload or {})


def in_time_order(found: Sequence[Memory]) -> list[Memory]:
    """The oldest first."""
    return sorted(found, key=lambda each: (each.created_at, each.id))
