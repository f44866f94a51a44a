"""What long-term memory does on any Qdrant: the client's own memory, the embedded server, and a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from qdrant_client import AsyncQdrantClient

from memory.errors import InvalidMemoryError, MemoryNotFoundError
from memory.longterm import LongTermMemory, tokens_of
from memory.points import Source
from memory.scope import Scope
from tests.memory.conftest import Clock
from tests.memory.toy_embedder import ToyModel, toy_embedder

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
ADA, BOB = Scope("acme", "ada"), Scope("acme", "bob")


@pytest.fixture
async def memory(qdrant: AsyncQdrantClient, collection: str, clock: Clock) -> AsyncIterator[LongTermMemory]:
    made = LongTermMemory(qdrant, collection=collection, clock=clock)
    await made.open()
    yield made
    await qdrant.delete_collection(collection)


async def texts(memory: LongTermMemory, scope: Scope, query: str, **options) -> list[str]:
    return [found.memory.text for found in await memory.recall(scope, query, **options)]


async def test_what_is_remembered_is_recalled_as_it_was_said(memory: LongTermMemory, clock: Clock) -> None:
    source = Source("job_1", "5-0", "9-0")
    at = datetime(2026, 2, 1, 12, 30, tzinfo=UTC)
    kept = await memory.remember(
        ADA, " Ada's dog is called Rex. ", kind="episodic", keywords=["pet"], importance=0.9, event_at=at, source=source
    )
    assert (kept.text, kept.kind, kept.keywords) == ("Ada's dog is called Rex.", "episodic", ("pet",))
    assert (kept.importance, kept.event_at, kept.source) == (0.9, at, source)
    assert kept.created_at == kept.last_confirmed_at == clock.now
    [found] = await memory.recall(ADA, "What is the name of the dog?")
    assert found.memory == kept == await memory.get(ADA, kept.id)
    assert await texts(memory, ADA, "pets") == [kept.text], "keywords are searched too"
    assert await memory.recall(ADA, "violin") == []
    assert await memory.recall(ADA, "the of and ?!") == []


async def test_opening_twice_and_at_once_changes_nothing(qdrant: AsyncQdrantClient, collection: str) -> None:
    both = [LongTermMemory(qdrant, collection=collection) for _ in range(4)]
    await asyncio.gather(*(each.open() for each in both))
    await both[0].remember(ADA, "Likes tea.")
    await both[1].open()
    assert await texts(both[2], ADA, "tea") == ["Likes tea."]


async def test_nothing_crosses_a_scope(memory: LongTermMemory) -> None:
    others = [BOB, Scope("rival", "ada"), Scope("acme", "ada", agent="support")]
    kept = {scope: await memory.remember(scope, "The code word is heron.") for scope in (ADA, *others)}
    assert len({each.id for each in kept.values()}) == 4
    assert len(await memory.recall(ADA, "code word")) == 2, "a user's scope has its agents' in it"
    for scope in others:
        assert [found.memory for found in await memory.recall(scope, "code word")] == [kept[scope]]
        for operation in (memory.get, memory.history, memory.forget, memory.update):
            with pytest.raises(MemoryNotFoundError):
                await operation(scope, kept[ADA].id)
        with pytest.raises(MemoryNotFoundError):
            await memory.supersede(scope, kept[ADA].id, "The code word is crow.")
        await memory.mark_used(scope, [kept[ADA]])
    assert await memory.forget_user(BOB) == 1
    assert await memory.get(ADA, kept[ADA].id) == kept[ADA]


async def test_many_are_read_at_once_in_the_order_of_their_ids_and_from_no_other_scope(memory: LongTermMemory) -> None:
    tea, heron, past = [await memory.remember(ADA, text) for text in ("Likes tea.", "Saw a heron.", "Lives in Oslo.")]
    await memory.supersede(ADA, past.id, "Lives in Rome.")
    strange = await memory.remember(BOB, "Likes tea.")
    gone = await memory.remember(ADA, "Has a cat.")
    await memory.forget(ADA, gone.id)
    asked = [past.id, gone.id, tea.id, strange.id, heron.id]
    assert [each.id for each in await memory.get_many(ADA, asked)] == [past.id, tea.id, heron.id]
    assert await memory.get_many(ADA, []) == []


@pytest.mark.parametrize("slot", ["user.city", None])
async def test_what_was_said_earlier_supersedes_nothing_that_was_said_later(
    memory: LongTermMemory, clock: Clock, slot: str | None
) -> None:
    earlier = memory.as_of(clock.now)
    clock.forward(days=3)
    rome = await memory.remember(ADA, "Lives in Rome.", slot=slot)
    oslo = await earlier.remember(ADA, "Lives in Oslo.", slot=slot)
    assert oslo.last_confirmed_at == oslo.created_at < rome.last_confirmed_at
    assert oslo.superseded_by == (rome.id if slot else None)
    assert (await memory.get(ADA, rome.id)).valid_to is None
    assert (await earlier.remember(ADA, "Lives in Rome.", slot=slot)).last_confirmed_at == rome.last_confirmed_at


async def test_the_same_thing_said_again_is_confirmed(memory: LongTermMemory, clock: Clock) -> None:
    first = await memory.remember(ADA, "Likes green tea.")
    clock.forward(days=3)
    again = await memory.remember(ADA, "likes  GREEN tea.")
    assert (again.id, again.text, again.created_at) == (first.id, first.text, first.created_at)
    assert again.last_confirmed_at == clock.now
    assert len(await memory.browse(ADA)) == 1


async def test_a_slot_has_one_current_memory(memory: LongTermMemory) -> None:
    oslo = await memory.remember(ADA, "Ada lives in Oslo.", slot="user.city")
    rome = await memory.remember(ADA, "Ada lives in Rome.", slot="user.city")
    elsewhere = await memory.remember(BOB, "Bob lives in Bonn.", slot="user.city")
    closed = await memory.get(ADA, oslo.id)
    assert (closed.valid_to, closed.superseded_by) == (rome.created_at, rome.id)
    assert await texts(memory, ADA, "Where does Ada live?") == [rome.text]
    assert await memory.get_user_facts(ADA) == {"user.city": rome.text}
    assert [each.id for each in await memory.history(ADA, rome.id)] == [oslo.id, rome.id]
    back = await memory.remember(ADA, "Ada lives in Oslo.", slot="user.city")
    assert (back.id, back.valid_to, back.superseded_by) == (oslo.id, None, None)
    assert await texts(memory, ADA, "Where does Ada live?") == [oslo.text]
    assert (await memory.get(ADA, rome.id)).superseded_by == oslo.id
    assert (await memory.get(BOB, elsewhere.id)).valid_to is None


async def test_two_rivals_in_a_slot_leave_one(memory: LongTermMemory) -> None:
    for round in range(5):
        slot = f"user.city.{round}"
        said = [f"Ada lives in {city} {round}." for city in ("Oslo", "Rome", "Bonn", "Lima")]
        await asyncio.gather(*(memory.remember(ADA, text, slot=slot) for text in said))
        kept = [each for each in await memory.browse(ADA, past=True) if each.slot == slot]
        assert len(kept) == 4
        [current] = [each for each in kept if each.valid_to is None]
        assert {each.superseded_by for each in kept if each is not current} <= {each.id for each in kept}


async def test_a_rival_that_comes_late_with_an_earlier_word_does_not_win(
    memory: LongTermMemory, qdrant: AsyncQdrantClient, collection: str, clock: Clock
) -> None:
    slow = LongTermMemory(qdrant, collection=collection, clock=lambda: clock.now - timedelta(seconds=9))
    oslo = await memory.remember(ADA, "Ada lives in Oslo.", slot="user.city")
    rome = await slow.remember(ADA, "Ada lives in Rome.", slot="user.city")
    assert rome.superseded_by == oslo.id
    assert await memory.get_user_facts(ADA) == {"user.city": oslo.text}


async def test_superseding_by_id_and_its_history(memory: LongTermMemory) -> None:
    first = await memory.remember(ADA, "Works at Initech.", importance=0.7)
    second = await memory.supersede(ADA, first.id, "Works at Globex.")
    third = await memory.supersede(ADA, second.id, "Works at Hooli.")
    assert third.importance == 0.7
    assert await texts(memory, ADA, "works") == [third.text]
    for each in (first, second, third):
        assert [one.id for one in await memory.history(ADA, each.id)] == [first.id, second.id, third.id]
    assert (await memory.supersede(ADA, third.id, "works at hooli.")).id == third.id


async def test_of_rivals_that_supersede_the_same_one_wins(memory: LongTermMemory) -> None:
    old = await memory.remember(ADA, "Works at Initech.")
    said = [f"Works at Firm {number}." for number in range(6)]
    answers = await asyncio.gather(*(memory.supersede(ADA, old.id, text) for text in said))
    [current] = await memory.browse(ADA)
    assert {answer.id for answer in answers} == {current.id}
    assert (await memory.get(ADA, old.id)).superseded_by == current.id


async def test_the_newer_of_two_that_match_alike_comes_first(memory: LongTermMemory, clock: Clock) -> None:
    await memory.remember(ADA, "The standup is at nine.")
    clock.forward(days=90)
    await memory.remember(ADA, "The standup is at ten.")
    assert await texts(memory, ADA, "When is the standup?") == ["The standup is at ten.", "The standup is at nine."]


async def test_ties_are_broken_the_same_way_each_time(memory: LongTermMemory, clock: Clock) -> None:
    clock.now = clock.now.replace(microsecond=0)
    fixed, memory._clock = clock(), lambda: fixed
    kept = [await memory.remember(ADA, f"Likes tea with x{number}.") for number in range(12)]
    wanted = sorted((each.id for each in kept), reverse=True)[:5]
    for _ in range(3):
        assert [found.memory.id for found in await memory.recall(ADA, "tea", k=5)] == wanted


async def test_budget_kinds_and_expiry(memory: LongTermMemory, clock: Clock) -> None:
    long = await memory.remember(ADA, "Tea tea tea. " + "Green leaves. " * 60)
    short = await memory.remember(ADA, "Drinks tea at four.", kind="episodic")
    ending = await memory.remember(ADA, "Tea voucher.", expires_at=clock.now + timedelta(days=1))
    assert set(await texts(memory, ADA, "tea")) == {long.text, short.text, ending.text}
    assert await texts(memory, ADA, "tea", kinds=["episodic"]) == [short.text]
    budget = tokens_of(short) + tokens_of(ending)
    assert set(await texts(memory, ADA, "tea", tokens=budget)) == {short.text, ending.text}
    assert await texts(memory, ADA, "tea", tokens=0) == []
    clock.forward(days=2)
    assert set(await texts(memory, ADA, "tea")) == {long.text, short.text}
    assert ending.id not in {each.id for each in await memory.browse(ADA)}
    await memory.forget_expired(ADA)
    with pytest.raises(MemoryNotFoundError):
        await memory.get(ADA, ending.id)


async def test_explanations_add_up(memory: LongTermMemory, clock: Clock) -> None:
    await memory.remember(ADA, "Green tea is the favourite.")
    clock.forward(days=30)
    await memory.remember(ADA, "Black tea in the morning.")
    found = await memory.recall(ADA, "favourite tea in the morning", explain=True)
    assert len(found) == 2
    for each in found:
        assert each.why is not None
        assert each.why.bm25 > 0
        assert (each.why.words + each.why.cosine) * each.why.recency == pytest.approx(each.score, rel=1e-4)
    [old] = [each for each in found if "Green" in each.memory.text]
    assert old.why is not None
    assert old.why.recency == pytest.approx(0.9, abs=1e-4), "half of what age can take is gone after 30 days"


async def test_updating_using_and_forgetting(memory: LongTermMemory, clock: Clock) -> None:
    kept = await memory.remember(ADA, "Likes tea.")
    assert (await memory.update(ADA, kept.id, importance=1.0)).importance == 1.0
    await memory.mark_used(ADA, [kept])
    assert (await memory.get(ADA, kept.id)).uses == 1
    unused = await memory.remember(ADA, "Likes cake.")
    clock.forward(days=100)
    fresh = await memory.remember(ADA, "Likes jam.")
    await memory.forget_unused(ADA, clock.now - timedelta(days=50))
    assert {each.id for each in await memory.browse(ADA)} == {kept.id, fresh.id}
    with pytest.raises(MemoryNotFoundError):
        await memory.forget(ADA, unused.id)
    await memory.forget(ADA, kept.id)
    assert await memory.forget_user(ADA) == 1
    assert await memory.browse(ADA, past=True) == []


async def test_the_simple_face(memory: LongTermMemory) -> None:
    facts = {"user.city": "Lives in Oslo.", "user.name": "Is called Ada."}
    assert await memory.update_user_facts(ADA, facts) == facts
    assert await memory.update_user_facts(ADA, {"user.city": "Lives in Rome.", "user.name": None}) == {
        "user.city": "Lives in Rome."
    }
    assert [each.text for each in await memory.browse(ADA, past=True)] == ["Lives in Rome.", "Lives in Oslo."]


async def test_odd_dates_and_texts_do_not_break_a_recall(memory: LongTermMemory) -> None:
    for number, at in enumerate([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)]):
        await memory.remember(ADA, f"Tea {number}.", event_at=at, expires_at=at)
    await memory.remember(ADA, "Tea \ud800 \x00 ‮ 🍵 '); DROP TABLE")
    found = await texts(memory, ADA, "tea")
    assert len(found) == 2, "the one that expired in the year 1 is gone"


async def test_pages(memory: LongTermMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.store.PAGE", 4)
    for number in range(10):
        await memory.remember(ADA, f"Fact number {number}.", slot=f"fact.{number}")
    facts = await memory.get_user_facts(ADA)
    assert list(facts) == [f"fact.{number}" for number in range(10)]
    assert [each.text for each in await memory.browse(ADA, limit=2)] == ["Fact number 9.", "Fact number 8."]


async def test_a_sweep_forgets_what_is_over_and_what_was_of_no_use_of_all_tenants(
    memory: LongTermMemory, clock: Clock
) -> None:
    other = Scope("rival", "eve")
    soon = clock.now + timedelta(hours=1)
    for scope in (ADA, other):
        await memory.remember(scope, "Is on holiday.", expires_at=soon)
        await memory.remember(scope, "Has a cat.")
        await memory.mark_used(scope, [await memory.remember(scope, "Likes tea.")])
    later = clock.now + timedelta(days=100)
    fresh = await memory.as_of(later).remember(ADA, "Has a dog.")
    assert await memory.store.prune(soon - timedelta(minutes=1)) == 0
    assert await memory.store.prune(soon) == 2
    assert [each.text for each in await memory.browse(other, past=True)] == ["Likes tea.", "Has a cat."]
    assert await memory.store.prune(later, later - timedelta(days=1)) == 2
    assert [each.text for each in await memory.browse(other, past=True)] == ["Likes tea."]
    assert {each.text for each in await memory.browse(ADA, past=True)} == {"Likes tea.", fresh.text}


async def test_pages_go_on_where_the_last_one_ended_also_within_one_moment(
    memory: LongTermMemory, clock: Clock
) -> None:
    for moment in (clock(), clock()):
        for number in range(20):  # as many as a job learns
            await memory.as_of(moment).remember(ADA, f"Fact {number} of {moment}.")
    seen, after = [], None
    while page := await memory.browse(ADA, limit=7, after=after):
        seen += page
        after = page[-1].cursor
    assert seen == sorted(seen, key=lambda each: (each.created_at, each.id), reverse=True)
    assert len({each.id for each in seen}) == len(seen) == 40
    for wrong in ("yesterday", "2026-01-01T00:00:00_mem_x", "2026-01-01T00:00:00Z_nothing"):
        with pytest.raises(InvalidMemoryError, match="expected the"):
            await memory.browse(ADA, after=wrong)


async def test_whose_a_memory_is_only_its_tenant_learns(memory: LongTermMemory) -> None:
    kept = await memory.remember(Scope("acme", "ada", "support"), "Likes tea.")
    assert await memory.scope_of("acme", kept.id) == kept.scope
    for tenant, memory_id in (("rival", kept.id), ("acme", "mem_" + 32 * "0")):
        with pytest.raises(MemoryNotFoundError):
            await memory.scope_of(tenant, memory_id)


async def test_what_there_is_is_counted_without_making_anything(qdrant: AsyncQdrantClient, collection: str) -> None:
    memory = LongTermMemory(qdrant, collection=collection)
    assert (await memory.store.facts()).memories == 0
    assert not await qdrant.collection_exists(collection)
    await memory.open()
    for text in ("Likes tea.", "Lives in Oslo."):
        await memory.remember(ADA, text)
    other = LongTermMemory(qdrant, toy_embedder(), collection=collection)
    assert ((await memory.store.facts()).waiting, (await other.store.facts()).waiting) == (0, 2)
    await other.open()
    await other.remember(BOB, "Likes tea.")
    found = await other.store.facts()
    assert (found.memories, found.waiting) == (3, 2)
    await qdrant.delete_collection(collection)


# ---- with an embedder


async def test_a_paraphrase_is_found_with_an_embedder_only(
    memory: LongTermMemory, qdrant: AsyncQdrantClient, collection: str, clock: Clock
) -> None:
    kept = await memory.remember(ADA, "Lives in Oslo.")
    other = await memory.remember(ADA, "Eats no meat.")
    assert await memory.recall(ADA, "Which town is home?") == []
    seeing = LongTermMemory(qdrant, toy_embedder(), collection=collection, clock=clock)
    await seeing.open()
    await seeing.open()
    found = await seeing.recall(ADA, "Which town is home?")
    assert found == [], "there is no vector yet"
    seen: list[tuple[int, int]] = []
    assert await seeing.store.reembed(lambda done, of: seen.append((done, of))) == 2
    assert seen == [(2, 2)]
    assert await seeing.store.reembed() == 0
    [best, *_] = await seeing.recall(ADA, "Which town is home?", explain=True)
    assert best.memory.id == kept.id
    assert best.why is not None
    assert (best.why.words + best.why.cosine) * best.why.recency == pytest.approx(best.score, rel=1e-4)
    new = await seeing.remember(ADA, "Works in an office.")
    assert (await seeing.recall(ADA, "career and employer"))[0].memory.id == new.id
    assert (await seeing.recall(BOB, "career and employer")) == []
    assert (await memory.recall(ADA, "meat"))[0].memory.id == other.id
    await seeing.store.drop_embedder("toy")
    assert await texts(memory, ADA, "meat") == [other.text]


async def test_vectors_are_cached_and_forgotten(qdrant: AsyncQdrantClient, collection: str) -> None:
    embedder = toy_embedder()
    model = embedder._model
    assert isinstance(model, ToyModel)
    memory = LongTermMemory(qdrant, embedder, collection=collection)
    await memory.open()
    for _ in range(3):
        await memory.recall(ADA, "office")
    assert model.calls == [["office"]]
    await memory.forget_user(ADA)
    await memory.recall(ADA, "office")
    assert len(model.calls) == 2
