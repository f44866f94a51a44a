"""The conversation of a session, which several jobs may extend."""

from __future__ import annotations

import asyncio

import pytest

from agent_core.errors import StaleAttemptError
from agent_core.types import Json
from jobs.link import RedisLink
from memory.session import TTL_SECONDS, Fence, SessionMemory, SessionScope

SCOPE = SessionScope("acme", "chat")


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
    await memory.append(SCOPE, 0, said("a"))
    assert 0 < await link.command("TTL", SCOPE.key) <= TTL_SECONDS
    for keep_alive in (memory.append(SCOPE, 1, said("b")), memory.read(SCOPE), memory.read(SCOPE, 1)):
        await link.command("EXPIRE", SCOPE.key, 10)
        await keep_alive
        assert await link.command("TTL", SCOPE.key) > TTL_SECONDS - 60


async def test_a_writer_that_lost_its_fence_is_refused_and_changes_nothing(
    memory: SessionMemory, link: RedisLink
) -> None:
    await link.command("HSET", "record", "token", "mine")
    mine, stale = Fence("record", "token", "mine"), Fence("record", "token", "stale")
    assert await memory.append(SCOPE, 0, said("a"), mine)
    with pytest.raises(StaleAttemptError):
        await memory.append(SCOPE, 1, said("b"), stale)
    await link.command("HDEL", "record", "token")
    for length, messages in ((1, said("b")), (0, said("a"))):
        with pytest.raises(StaleAttemptError):
            await memory.append(SCOPE, length, messages, mine)
    assert await texts(memory) == ["a"]
