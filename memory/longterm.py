"""Long-term memory: facts and episodes of users, in Qdrant, a server's or the embedded one.

Every call takes a Scope and sees nothing outside it. Writes need no lock: a memory's id is the hash of what it says,
and what closes or reopens one is a conditional write, so writers in many processes agree.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from qdrant_client import AsyncQdrantClient, models

from agent_core.memory import MOST_RECALLED
from memory import bm25
from memory.embedding.port import Embedder
from memory.errors import InvalidMemoryError, MemoryNotFoundError
from memory.ids import public_id, sound_id
from memory.points import (
    LONGEST_SLOT,
    Kind,
    Memory,
    Recalled,
    Source,
    Why,
    date,
    moment,
    read_cursor,
    sound_count,
    sound_kinds,
    sound_text,
)
from memory.ranking import Question, best, current, of_kinds
from memory.scope import Scope, anyones, empty, equals, with_id
from memory.store import COLLECTION, PAGE, MemoryStore, in_time_order, memory_of, set_payload, until

MOST_BROWSED = 1_000
LONGEST_QUERY = 8_000
AT_ONCE = 64
"""More memories than a job learns at one moment: those of one moment stand in no order for Qdrant."""


class LongTermMemory:
    """Remembers and recalls. Call `open` once before anything else.

    Every method raises MemoryUnavailableError when Qdrant is away, EmbeddingError when the embedder is, and
    InvalidMemoryError for what it cannot take. `store` is for operators: it re-embeds, over all tenants.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        embedder: Embedder | None = None,
        *,
        collection: str = COLLECTION,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.store = MemoryStore(client, embedder, collection)
        self._clock = clock

    def as_of(self, said_at: datetime) -> LongTermMemory:
        """The same memory for what was said at another time than now: it supersedes nothing that was said later."""
        other = copy.copy(self)
        other._clock = lambda: said_at
        return other

    async def open(self) -> None:
        """Makes the collection and its indexes unless they are there; any number of processes may do so at once."""
        await self.store.open()

    async def aclose(self) -> None:
        """Closes the connections to Qdrant and of the embedder."""
        await self.store.aclose()

    # ---- writes

    async def remember(
        self,
        scope: Scope,
        text: str,
        *,
        kind: Kind = "semantic",
        slot: str | None = None,
        keywords: Sequence[str] = (),
        importance: float = 0.5,
        event_at: datetime | None = None,
        expires_at: datetime | None = None,
        source: Source | None = None,
    ) -> Memory:
        """Keeps a text. One that is known is confirmed, and current again if it was superseded.

        Of a `slot`, like `user.city`, one memory is current: what was said last; it supersedes the others.
        """
        memory = Memory.new(
            scope,
            text,
            self._now(),
            kind=kind,
            slot=slot,
            keywords=keywords,
            importance=importance,
            event_at=event_at,
            expires_at=expires_at,
            source=source,
        )
        return await self._say(memory)

    async def update(
        self, scope: Scope, memory_id: str, *, importance: float | None = None, expires_at: datetime | None = None
    ) -> Memory:
        """Changes what is known about a memory, not what it says: for that, `supersede` it.

        None leaves as it is. Raises MemoryNotFoundError.
        """
        found = await self.store.one(scope, memory_id)
        importance = found.importance if importance is None else importance
        expires_at = found.expires_at if expires_at is None else expires_at
        sound = Memory.new(found.scope, found.text, self._now(), importance=importance, expires_at=expires_at)
        payload = {"importance": sound.importance, "expires_at": date(sound.expires_at)}
        await self.store.apply(set_payload(payload, scope.within(with_id(found.id))))
        return await self.store.one(scope, found.id)

    async def supersede(
        self, scope: Scope, memory_id: str, text: str, *, importance: float | None = None, source: Source | None = None
    ) -> Memory:
        """Puts a new text in a memory's place, in its slot and scope. Of rivals that supersede the same, one wins.

        Returns what holds in its place afterwards: the winner. Raises MemoryNotFoundError.
        """
        old = await self.store.one(scope, memory_id)
        new = Memory.new(
            old.scope,
            text,
            self._now(),
            kind=old.kind,
            slot=old.slot,
            importance=old.importance if importance is None else importance,
            source=source,
        )
        if old.slot is not None or new.id == old.id:
            return await self._say(new)
        still_open = old.scope.exactly(with_id(old.id), empty("valid_to"))
        said = await self._say(new, set_payload(_closed_by(new), still_open))
        closed = await self.store.one(scope, old.id)
        if closed.superseded_by in (None, new.id):
            return said
        winner = await self.store.one(scope, closed.superseded_by)
        mine = old.scope.exactly(with_id(new.id), empty("valid_to"), *_said(lte=new.last_confirmed_at))
        await self.store.apply(set_payload(_closed_by(winner), mine))
        return winner

    async def mark_used(self, scope: Scope, memories: Sequence[Memory]) -> None:
        """Counts that these memories were of use. Two who count at once may count one."""
        if memories:
            await self.store.apply(
                *(set_payload({"uses": each.uses + 1}, scope.within(with_id(each.id))) for each in memories)
            )

    # ---- forgetting

    async def forget(self, scope: Scope, memory_id: str) -> None:
        """Deletes a memory. Raises MemoryNotFoundError."""
        found = await self.store.one(scope, memory_id)
        await self.store.delete(scope.within(with_id(found.id)))

    async def forget_user(self, scope: Scope) -> int:
        """Deletes all that the scope has, past and current; returns how many memories there were.

        The embedded memory takes their text out of its files within seconds.
        """
        there = await self.store.count(scope.within())
        await self.store.delete(scope.within())
        return there

    async def forget_expired(self, scope: Scope) -> None:
        """Deletes what has expired, which recall no longer shows."""
        await self.store.delete(scope.within(until("expires_at", self._now())))

    async def forget_unused(self, scope: Scope, unconfirmed_since: datetime, most_uses: int = 0) -> None:
        """Deletes what was last said before a time and was used at most so often."""
        before = moment("unconfirmed_since", unconfirmed_since)
        if before is None:
            raise InvalidMemoryError("unconfirmed_since is None; expected a datetime with a time zone")
        if isinstance(most_uses, bool) or not isinstance(most_uses, int):
            raise InvalidMemoryError(f"most_uses is {most_uses!r}; expected a whole number")
        seldom = models.FieldCondition(key="uses", range=models.Range(lte=most_uses))
        await self.store.delete(scope.within(*_said(lt=before), seldom))

    # ---- reads

    async def recall(
        self,
        scope: Scope,
        query: str,
        *,
        k: int = 8,
        tokens: int | None = None,
        kinds: Sequence[Kind] = (),
        explain: bool = False,
    ) -> list[Recalled]:
        """The current memories that fit a question, the best first: at most `k`, and of at most `tokens` together.

        Only what shares a word with the question is found, or is like it when there is an embedder. Tokens are
        estimated from above, by `tokens_of`. With `explain`, each has a `why`.
        """
        sound_count("k", k, MOST_RECALLED)
        asked = sound_text("query", query[:LONGEST_QUERY] if isinstance(query, str) else query, LONGEST_QUERY)
        question = await self._question(scope, asked, sound_kinds(kinds))
        if not question.words.indices and question.dense is None:
            return []
        points = await self.store.query(**question.recall(k))
        found = best([Recalled(memory_of(point), point.score) for point in points if point.score > 0], k)
        if tokens is not None:
            found = _fitting(found, tokens)
        return await self._explained(question, found) if explain and found else found

    async def browse(
        self,
        scope: Scope,
        *,
        kinds: Sequence[Kind] = (),
        limit: int = 50,
        past: bool = False,
        after: str | None = None,
    ) -> list[Memory]:
        """Memories, the newest first; with `past`, those that were superseded or have expired too.

        `after` is the `cursor` of the memory to go on after.
        """
        also, most = of_kinds(sound_kinds(kinds)), sound_count("limit", limit, MOST_BROWSED)
        last = None if after is None else read_cursor(after)
        if last is not None:
            also.append(models.FieldCondition(key="created_at", range=models.DatetimeRange(lte=last[0])))
        wanted = scope.within(*also) if past else current(scope, self._now(), *also)
        found = in_time_order(await self.store.scroll(wanted, most + AT_ONCE, newest=True))[::-1]
        return [each for each in found if last is None or (each.created_at, each.id) < last][:most]

    async def get(self, scope: Scope, memory_id: str) -> Memory:
        """One memory, current or not. Raises MemoryNotFoundError."""
        return await self.store.one(scope, memory_id)

    async def scope_of(self, tenant: str, memory_id: str) -> Scope:
        """Whose memory of a tenant's this is, for who has no more than its id. Raises MemoryNotFoundError."""
        found = await self.store.scroll(anyones(tenant, sound_id(memory_id)), 1)
        if not found:
            raise MemoryNotFoundError(memory_id)
        return found[0].scope

    async def get_many(self, scope: Scope, memory_ids: Sequence[str]) -> list[Memory]:
        """Those of the memories that the scope has, current or not, in the order of their ids."""
        wanted = [sound_id(each) for each in memory_ids]
        found = await self.store.scroll(scope.within(with_id(*wanted)), len(wanted)) if wanted else []
        by_id = {each.id: each for each in found}
        return [by_id[each] for each in wanted if each in by_id]

    async def history(self, scope: Scope, memory_id: str) -> list[Memory]:
        """What was said in a memory's slot, or else the chain of what superseded what; the oldest first.

        Raises MemoryNotFoundError.
        """
        found = await self.store.one(scope, memory_id)
        if found.slot is not None:
            return in_time_order(await self.store.scroll(found.scope.exactly(equals("slot", found.slot))))
        chain, latest = {found.id: found}, [found]
        while latest and len(chain) < PAGE:
            after = [each.superseded_by for each in latest if each.superseded_by is not None]
            before = models.FieldCondition(key="superseded_by", match=models.MatchAny(any=[each.id for each in latest]))
            near = models.Filter(should=[before, with_id(*after)])
            latest = [each for each in await self.store.scroll(found.scope.exactly(near)) if each.id not in chain]
            chain |= {each.id: each for each in latest}
        return in_time_order(list(chain.values()))

    # ---- the simple face

    async def get_user_facts(self, scope: Scope) -> dict[str, str]:
        """What is currently known of a user by slots, like {"user.city": "Oslo"}."""
        found: dict[str, Memory] = {}
        async for memory in self.store.all(current(scope, self._now())):
            if memory.slot is not None:
                found[memory.slot] = max(memory, found.get(memory.slot, memory), key=lambda one: one.order)
        return {slot: found[slot].text for slot in sorted(found)}

    async def update_user_facts(self, scope: Scope, facts: Mapping[str, str | None]) -> dict[str, str]:
        """Sets slots, and forgets those whose text is None; returns all facts."""
        for slot, text in facts.items():
            if text is not None:
                await self.remember(scope, text, slot=slot)
            else:
                await self.store.delete(scope.exactly(equals("slot", sound_text("slot", slot, LONGEST_SLOT))))
        return await self.get_user_facts(scope)

    # ---- parts

    def _now(self) -> datetime:
        return self._clock().astimezone(UTC)

    async def _say(self, memory: Memory, *also: models.SetPayloadOperation) -> Memory:
        scope = memory.scope
        confirmed = {
            "last_confirmed_at": date(memory.last_confirmed_at),
            "expires_at": date(memory.expires_at),
            "valid_to": None,
            "superseded_by": None,
            **({} if memory.slot is None else {"slot": memory.slot}),
        }
        earlier = _said(lt=memory.last_confirmed_at)
        operations = [set_payload(confirmed, scope.exactly(with_id(memory.id), *earlier)), *also]
        if memory.slot is not None:
            in_slot = equals("slot", memory.slot)
            others = scope.exactly(in_slot, empty("valid_to"), *earlier, without=(with_id(memory.id),))
            operations.append(set_payload(_closed_by(memory), others))
        await self.store.apply(await self.store.insertion(memory), *operations)
        if memory.slot is not None:
            await self._settle(scope, memory.slot)
        return await self.store.one(scope, memory.id)

    async def _settle(self, scope: Scope, slot: str) -> None:
        # A rival's insertion may have come after this writer closed the others, and the rival's look before this
        # writer's insertion: whoever looks last sees both, and all agree on which one stays.
        rivals = await self.store.scroll(scope.exactly(equals("slot", slot), empty("valid_to")))
        if len(rivals) > 1:
            winner = max(rivals, key=lambda each: each.order)
            losers = with_id(*(each.id for each in rivals if each is not winner))
            beaten = scope.exactly(losers, empty("valid_to"), *_said(lte=winner.last_confirmed_at))
            await self.store.apply(set_payload(_closed_by(winner), beaten))

    async def _question(self, scope: Scope, text: str, kinds: tuple[Kind, ...]) -> Question:
        words, embedder = bm25.of_query(text), self.store.embedder
        if embedder is None:
            return Question(scope, words, self._now(), kinds)
        [dense] = await embedder.embed([text], "query")
        return Question(scope, words, self._now(), kinds, dense, embedder.name)

    async def _explained(self, question: Question, found: Sequence[Recalled]) -> list[Recalled]:
        searches = question.parts([each.memory.id for each in found])
        scores = [{public_id(point.id): point.score for point in await self.store.query(**each)} for each in searches]

        def why(memory: Memory) -> Why:
            bm25_score, cosine = (part.get(memory.id, 0.0) for part in (*scores, {})[:2])
            return question.why(memory, bm25_score, cosine)

        return [Recalled(each.memory, each.score, why(each.memory)) for each in found]


def tokens_of(memory: Memory) -> int:
    """An upper estimate of what a memory takes in a prompt, with its id and date around it."""
    return 24 + (len(memory.text.encode("utf-8")) + 2) // 3


def _fitting(found: Sequence[Recalled], tokens: int) -> list[Recalled]:
    left, kept = tokens, []
    for each in found:
        if tokens_of(each.memory) <= left:
            left -= tokens_of(each.memory)
            kept.append(each)
    return kept


def _said(**bounds: datetime) -> list[models.Condition]:
    return [models.FieldCondition(key="last_confirmed_at", range=models.DatetimeRange(**bounds))]


def _closed_by(memory: Memory) -> dict[str, Any]:
    return {"valid_to": date(memory.last_confirmed_at), "superseded_by": memory.id}
