"""A change of the embedder, on any Qdrant: every memory gets its vector, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from qdrant_client import AsyncQdrantClient, models

from memory.embedding.port import Embedder, Purpose, Vectors
from memory.errors import EmbeddingError
from memory.longterm import LongTermMemory
from memory.scope import Scope
from memory.store import REEMBEDDED_AT_ONCE
from tests.memory.conftest import Clock
from tests.memory.toy_embedder import ToyModel

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
ADA, BOB = Scope("acme", "ada"), Scope("rival", "bob")
MANY = 2 * REEMBEDDED_AT_ONCE + 10


class Interrupted(ToyModel):
    """Does something else before a batch."""

    most_texts = REEMBEDDED_AT_ONCE

    def __init__(self, at: int, what: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._at = at
        self._what = what

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Vectors:
        found = await super().embed(texts, purpose)
        if len(self.calls) == self._at:
            await self._what()
        return found


@pytest.fixture
async def old(qdrant: AsyncQdrantClient, collection: str, clock: Clock) -> AsyncIterator[LongTermMemory]:
    """The memory as processes without the new embedder have it, with memories of two tenants in it."""
    made = LongTermMemory(qdrant, collection=collection, clock=clock)
    await made.open()
    for number in range(MANY // 2):
        for scope in (ADA, BOB):
            await made.remember(scope, f"Lives in town {number} of {scope.user}.")
    yield made
    await qdrant.delete_collection(collection)


async def opened(old: LongTermMemory, model: ToyModel) -> LongTermMemory:
    """The same memory with an embedder."""
    made = LongTermMemory(old.store.client, Embedder(model), collection=old.store._collection, clock=old._clock)
    await made.open()
    return made


async def without_vector(memory: LongTermMemory) -> int:
    return await memory.store.count(models.Filter(must_not=[models.HasVectorCondition(has_vector="toy")]))


async def test_all_tenants_memories_get_a_vector_and_progress_is_told(old: LongTermMemory) -> None:
    new, seen = await opened(old, ToyModel()), list[tuple[int, int]]()
    assert await new.store.reembed(lambda done, of: seen.append((done, of))) == MANY
    assert seen == [(64, MANY), (128, MANY), (MANY, MANY)]
    assert await without_vector(new) == 0
    for scope in (ADA, BOB):
        found = await new.recall(scope, "Which city is home?", k=5)
        assert len(found) == 5
        assert {each.memory.scope for each in found} == {scope}


async def test_one_that_was_stopped_goes_on_where_it_was(old: LongTermMemory) -> None:
    async def stop() -> None:
        raise EmbeddingError("the server was stopped", retryable=True)

    model = Interrupted(2, stop)
    new = await opened(old, model)
    with pytest.raises(EmbeddingError):
        await new.store.reembed()
    assert await without_vector(new) == MANY - REEMBEDDED_AT_ONCE
    assert await new.recall(ADA, "town 3 of ada"), "recall goes on meanwhile"
    assert await new.store.reembed() == MANY - REEMBEDDED_AT_ONCE
    assert await without_vector(new) == 0


async def test_what_is_said_and_forgotten_meanwhile(old: LongTermMemory, request: pytest.FixtureRequest) -> None:
    if "local" in request.node.name:
        pytest.skip("the client's own memory raises KeyError where a server answers 404")

    async def live() -> None:
        await old.remember(ADA, "Eats no meat.")
        await new.remember(ADA, "Works in an office.")
        await old.remember(BOB, "Lives in town 1 of bob.")
        await old.forget_user(BOB)

    model = Interrupted(2, live)
    new = await opened(old, model)
    await new.store.reembed()
    assert await without_vector(new) == 0
    assert await new.store.count(BOB.within()) == 0, "what is forgotten does not come back"
    assert await new.store.count(ADA.within()) == MANY // 2 + 2
    texts = [found.memory.text for found in await new.recall(ADA, "dinner and diet", k=1)]
    assert texts == ["Eats no meat."]


async def test_of_two_at_once_both_end(old: LongTermMemory) -> None:
    new = await opened(old, ToyModel())

    async def another() -> None:
        await new.store.reembed()

    await (await opened(old, Interrupted(1, another))).store.reembed()
    assert await without_vector(new) == 0
