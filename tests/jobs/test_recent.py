from __future__ import annotations

import asyncio

import pytest

from jobs.recent import MOST_REMEMBERED, Recent, Seldom


class Source:
    """A value that changes; how often it was asked for."""

    def __init__(self) -> None:
        self.value = 1
        self.asked = 0

    async def look_up(self) -> int:
        self.asked += 1
        return self.value


async def test_a_value_is_looked_up_once_until_it_is_forgotten_or_old():
    source, recent = Source(), Recent(3600)
    assert [await recent.get("k", source.look_up) for _ in range(3)] == [1, 1, 1]
    source.value = 2
    recent.forget("other")
    assert await recent.get("k", source.look_up) == 1
    recent.forget("k")
    assert await recent.get("k", source.look_up) == 2
    recent.forget()
    assert await recent.get("k", source.look_up) == 2
    assert source.asked == 3
    old = Recent(0)
    assert [await old.get("k", source.look_up) for _ in range(2)] == [2, 2]
    assert source.asked == 5


async def test_what_changes_while_it_is_looked_up_is_not_remembered():
    recent, asked, go_on = Recent(3600), asyncio.Event(), asyncio.Event()

    async def slow() -> int:
        asked.set()
        await go_on.wait()
        return 1

    first = asyncio.create_task(recent.get("k", slow))
    await asked.wait()
    recent.forget("k")
    go_on.set()
    assert await first == 1
    source = Source()
    source.value = 2
    assert await recent.get("k", source.look_up) == 2


async def test_what_fails_is_not_remembered_and_the_memory_is_bounded():
    recent, source = Recent(3600), Source()

    async def fail() -> int:
        raise LookupError

    with pytest.raises(LookupError):
        await recent.get("k", fail)
    for number in range(MOST_REMEMBERED + 1):
        await recent.get(str(number), source.look_up)
    assert len(recent._known) <= MOST_REMEMBERED


def test_seldom_is_once_for_each_name_and_again_when_the_time_is_over():
    seldom = Seldom(3600)
    assert [seldom.now(name) for name in ("a", "a", "b", "a")] == [True, False, True, False]
    always = Seldom(0)
    assert [always.now("a") for _ in range(2)] == [True, True]
    for number in range(MOST_REMEMBERED + 1):
        seldom.now(str(number))
    assert len(seldom._last) <= MOST_REMEMBERED
