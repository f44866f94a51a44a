"""The conversation of a session, which several jobs may extend."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from agent_core.errors import StaleAttemptError
from agent_core.types import Json
from jobs.link import RedisLink, connect
from memory.session import TTL_SECONDS, Conversation, Fence, SessionMemory, SessionScope

SCOPE = SessionScope("acme", "chat")
SUMMARY: Json = {"role": "user", "content": "summary"}


def said(*texts: str) -> list[Json]:
    return [{"role": "user", "content": text} for text in texts]


async def texts(memory: SessionMemory, scope: SessionScope = SCOPE) -> list[str]:
    return [message["content"] for message in (await memory.read(scope)).messages]


@pytest.fixture
def memory(link: RedisLink) -> SessionMemory:
    return SessionMemory(link)


async def test_what_was_said_is_read_in_order(memory: SessionMemory) -> None:
    assert await texts(memory) == []
    assert await memory.append(SCOPE, 0, said("ä", "b"))
    assert await memory.append(SCOPE, 2, said("c"))
    assert await texts(memory) == ["ä", "b", "c"]
    assert (await memory.read(SCOPE, 2)).messages == said("ä", "b")
    assert (await memory.read(SCOPE, 0)).messages == []


async def test_a_scope_is_alone(memory: SessionMemory) -> None:
    await memory.append(SCOPE, 0, said("a"))
    assert await texts(memory, SessionScope("rival", "chat")) == []
    assert await texts(memory, SessionScope("acme", "other")) == []


async def test_an_append_to_a_conversation_that_has_moved_on_is_refused(memory: SessionMemory) -> None:
    await memory.append(SCOPE, 0, said("a", "b"))
    for length in (0, 1, 3):
        assert not await memory.append(SCOPE, length, said("x"))
    assert await texts(memory) == ["a", "b"]


async def test_the_same_append_twice_is_one(memory: SessionMemory) -> None:
    assert await memory.append(SCOPE, 0, said("a"))
    for _ in range(3):
        assert await memory.append(SCOPE, 1, said("b", "c"))
    assert await texts(memory) == ["a", "b", "c"]


async def test_another_append_that_ends_alike_is_not_taken_for_the_same(memory: SessionMemory) -> None:
    assert await memory.append(SCOPE, 0, said("question", "yes"))
    assert not await memory.append(SCOPE, 0, said("another question", "yes"))
    assert await texts(memory) == ["question", "yes"]


async def test_nothing_to_say_is_said_at_any_length(memory: SessionMemory) -> None:
    assert await memory.append(SCOPE, 7, [])
    assert await texts(memory) == []


async def test_eight_writers_lose_nothing_and_repeat_nothing(memory: SessionMemory, link: RedisLink) -> None:
    async def write(writer: int) -> None:
        length = 0
        for number in range(100):
            while not await memory.append(SCOPE, length, said(f"{writer}:{number}")):
                length = await link.command("LLEN", SCOPE.key)
            length += 1

    await asyncio.gather(*(write(writer) for writer in range(8)))
    found = await texts(memory)
    assert sorted(found) == sorted(f"{writer}:{number}" for writer in range(8) for number in range(100))
    for writer in range(8):
        own = [text for text in found if text.startswith(f"{writer}:")]
        assert own == [f"{writer}:{number}" for number in range(100)], "each writer's own stay in order"


async def test_reading_and_writing_keep_a_conversation_alive(memory: SessionMemory, link: RedisLink) -> None:
    await memory.append(SCOPE, 0, said("a", "b"))
    assert await memory.compact(SCOPE, 0, 1, SUMMARY)
    for use in (
        lambda: memory.append(SCOPE, 2, said("c")),
        lambda: memory.read(SCOPE),
        lambda: memory.read(SCOPE, 1),
        lambda: memory.compact(SCOPE, 1, 2, SUMMARY),
    ):
        for key in (SCOPE.key, SCOPE.about_key):
            await link.command("EXPIRE", key, 10)
        await use()
        for key in (SCOPE.key, SCOPE.about_key):
            assert TTL_SECONDS - 60 < await link.command("TTL", key) <= TTL_SECONDS


async def test_looking_keeps_nothing_alive(memory: SessionMemory, link: RedisLink) -> None:
    await memory.append(SCOPE, 0, said("a"))
    await link.command("EXPIRE", SCOPE.key, 10)
    assert 0 < (await memory.look(SCOPE, 0, 5)).kept_ms <= 10_000
    assert await link.command("TTL", SCOPE.key) <= 10


async def test_a_writer_that_lost_its_fence_is_refused_and_changes_nothing(
    memory: SessionMemory, link: RedisLink
) -> None:
    await link.command("HSET", "record", "token", "mine")
    mine, stale = Fence("record", "token", "mine"), Fence("record", "token", "stale")
    assert await memory.append(SCOPE, 0, said("a"), mine)
    for late in (memory.append(SCOPE, 1, said("b"), stale), memory.compact(SCOPE, 0, 1, SUMMARY, stale)):
        with pytest.raises(StaleAttemptError):
            await late
    await link.command("HDEL", "record", "token")
    for late in (memory.append(SCOPE, 1, said("b"), mine), memory.append(SCOPE, 0, said("a"), mine)):
        with pytest.raises(StaleAttemptError):
            await late
    assert await texts(memory) == ["a"]


# ---- compaction


async def test_a_summary_stands_where_the_last_message_it_is_of_stood(memory: SessionMemory) -> None:
    await memory.append(SCOPE, 0, said("a", "b", "c", "d", "e"))
    assert await memory.compact(SCOPE, 0, 3, SUMMARY)
    found = await memory.read(SCOPE)
    assert found == Conversation([SUMMARY, *said("d", "e")], 2, 5, 2, 1, found.kept_ms)
    assert await memory.append(SCOPE, 5, said("f"))
    assert await memory.compact(SCOPE, 1, 2, said("second")[0])
    found = await memory.read(SCOPE)
    assert found == Conversation(said("second", "e", "f"), 3, 6, 3, 2, found.kept_ms)


async def test_a_part_of_a_conversation_that_was_compacted_since(memory: SessionMemory) -> None:
    await memory.append(SCOPE, 0, said("a", "b", "c", "d", "e"))
    await memory.compact(SCOPE, 0, 3, SUMMARY)
    assert (await memory.read(SCOPE, 4)).messages == [SUMMARY, *said("d")]
    for length in (1, 2, 3):
        assert (await memory.read(SCOPE, length)).messages == [SUMMARY]


async def test_a_compaction_of_another_generation_changes_nothing(memory: SessionMemory) -> None:
    await memory.append(SCOPE, 0, said("a", "b", "c"))
    assert not await memory.compact(SCOPE, 1, 2, SUMMARY)
    assert await memory.compact(SCOPE, 0, 2, SUMMARY)
    assert not await memory.compact(SCOPE, 0, 2, said("a rival's")[0])
    assert await texts(memory) == ["summary", "c"]


async def test_the_same_compaction_twice_is_one(memory: SessionMemory) -> None:
    await memory.append(SCOPE, 0, said("a", "b", "c"))
    for _ in range(3):
        assert await memory.compact(SCOPE, 0, 2, SUMMARY)
    assert await texts(memory) == ["summary", "c"]


@pytest.mark.parametrize("covered", [-1, 0, 3])
async def test_what_is_not_there_cannot_give_way(memory: SessionMemory, covered: int) -> None:
    await memory.append(SCOPE, 0, said("a", "b"))
    assert not await memory.compact(SCOPE, 0, covered, SUMMARY)
    assert await texts(memory) == ["a", "b"]


async def test_a_replayed_append_is_none_after_a_compaction_too(memory: SessionMemory) -> None:
    await memory.append(SCOPE, 0, said("a", "b", "c"))
    await memory.append(SCOPE, 3, said("d", "e"))
    await memory.compact(SCOPE, 0, 2, SUMMARY)
    assert await memory.append(SCOPE, 3, said("d", "e"))
    assert not await memory.append(SCOPE, 0, said("a", "b", "c", "d", "e"))
    assert not await memory.append(SCOPE, 0, said("e", "b", "c", "d", "e")), (
        "it ends alike and began before what is left"
    )
    assert await texts(memory) == ["summary", "c", "d", "e"]


async def test_a_page_of_a_conversation(memory: SessionMemory) -> None:
    await memory.append(SCOPE, 0, said(*"abcdef"))
    await memory.compact(SCOPE, 0, 3, SUMMARY)
    for start, expected in ((0, (2, "summary d")), (2, (2, "summary d")), (4, (4, "e f")), (5, (5, "f")), (6, (6, ""))):
        page = await memory.look(SCOPE, start, 2)
        assert (page.start, " ".join(m["content"] for m in page.messages)) == expected
        assert (page.length, page.base, page.generation) == (6, 2, 1)
    nobodys = await memory.look(SessionScope("rival", "chat"), 0, 2)
    assert (nobodys.messages, nobodys.length) == ([], 0)


class Twin(RuleBasedStateMachine):
    """Session memory against a plain list of all that was ever said."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.base = self.generation = 0
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        self.runner = asyncio.Runner()
        self.link = RedisLink(connect(self.url))
        self.memory = SessionMemory(self.link)

    def do(self, made: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(made)

    @rule(lag=st.integers(0, 3), words=st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
    def append(self, lag: int, words: list[str]) -> None:
        at = max(0, len(self.said) - lag)
        replayed = at > self.base - (not self.generation) and self.said[at:] == words
        done = self.do(self.memory.append(SCOPE, at, said(*words)))
        assert done == (at == len(self.said) or replayed)
        if at == len(self.said):
            self.said += words

    @rule(off=st.integers(-1, 1), covered=st.integers(0, 4))
    def compact(self, off: int, covered: int) -> None:
        summary = f"summary {self.generation + off + 1}"
        left, replay = len(self.said) - self.base, off == -1 and self.generation > 0
        done = self.do(self.memory.compact(SCOPE, self.generation + off, covered, said(summary)[0]))
        made = off == 0 and 1 <= covered <= left
        assert done == (made or replay)
        if made:
            self.base, self.generation = self.base + covered - 1, self.generation + 1
            self.said[self.base] = summary

    @invariant()
    def nothing_is_lost_and_nothing_is_twice(self) -> None:
        found = self.do(self.memory.read(SCOPE))
        assert [m["content"] for m in found.messages] == self.said[self.base :]
        assert (found.start, found.length, found.generation) == (self.base, len(self.said), self.generation)

    def teardown(self) -> None:
        self.do(self.link.aclose())
        self.runner.close()


def test_any_order_of_appends_and_compactions(redis_url: str) -> None:
    machine = type("TwinHere", (Twin,), {"url": redis_url})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))


# ---- what it costs


async def test_a_thousand_messages_of_two_kilobytes_move_less_than_five_megabytes(
    memory: SessionMemory, link: RedisLink
) -> None:
    async def received() -> int:
        return int((await link.command("INFO", "stats"))["total_net_input_bytes"])

    before = await received()
    for number in range(1_000):
        assert await memory.append(SCOPE, number, said(f"{number:04}".ljust(2_048, ".")))
    assert await received() - before < 5_000_000
    assert (await memory.look(SCOPE, 0, 1)).length == 1_000


async def test_forgetting_a_user_takes_every_session_they_spoke_in(memory: SessionMemory, link: RedisLink) -> None:
    """Whoever else spoke there, whichever names they have, and whether or not a summary stands there."""
    theirs, shared, others = (SessionScope("acme", name) for name in ("mine", "a:b/ours", "not mine"))
    elsewhere = SessionScope("acme-2", "mine")
    for scope, user in ((theirs, "ada"), (shared, "bob"), (others, "bob"), (elsewhere, "ada")):
        assert await memory.append(scope, 0, said("one", "two"), user=user)
    assert await memory.append(shared, 2, said("three"), user="ada")
    assert await memory.compact(shared, 0, 2, said("summary")[0])
    assert await memory.forget_user("acme", "ada") == 2
    assert [(await memory.read(scope)).length for scope in (theirs, shared, others, elsewhere)] == [0, 0, 2, 2]
    assert await link.command("EXISTS", theirs.about_key, shared.about_key) == 0
    assert await memory.forget_user("acme", "ada") == 0
    assert await memory.forget_user("ac*", "bob") == 0


async def test_who_spoke_is_known_for_as_long_as_the_session_lives(memory: SessionMemory, link: RedisLink) -> None:
    scope = SessionScope("acme", "s")
    await memory.append(scope, 0, said("one"), user="ada")
    await link.command("EXPIRE", scope.key, 10)
    await link.command("EXPIRE", scope.about_key, 5)
    await memory.append(scope, 1, said("two"))
    await memory.read(scope)
    assert await link.command("TTL", scope.about_key) >= await link.command("TTL", scope.key) > 10


async def test_a_job_that_was_running_cannot_bring_a_forgotten_session_back(memory: SessionMemory) -> None:
    scope = SessionScope("acme", "s")
    await memory.append(scope, 0, said("one", "two"), user="ada")
    await memory.forget_user("acme", "ada")
    assert not await memory.append(scope, 2, said("three"), user="ada")
    assert not await memory.compact(scope, 0, 2, said("summary")[0])
