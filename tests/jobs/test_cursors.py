"""Signed cursors: what was not signed for a list is no cursor of it."""

from __future__ import annotations

import asyncio
import base64

import pytest

from jobs import cursors, keys
from jobs.errors import InvalidError
from jobs.link import RedisLink

PLACE = "1700000000000 job_abc"


async def test_a_cursor_leads_back_to_its_place(link: RedisLink):
    for place in (PLACE, "", "é"):
        assert await cursors.read(link, "jobs:a", await cursors.sign(link, "jobs:a", place)) == place


async def test_a_cursor_of_another_list_or_another_platform_is_none(link: RedisLink):
    cursor = await cursors.sign(link, "jobs:a", PLACE)
    with pytest.raises(InvalidError, match="next_cursor"):
        await cursors.read(link, "jobs:b", cursor)
    await link.command("DEL", keys.SERVER_SECRET)
    with pytest.raises(InvalidError):
        await cursors.read(link, "jobs:a", cursor)


async def test_each_bit_that_is_turned_is_noticed(link: RedisLink):
    cursor = await cursors.sign(link, "jobs:a", PLACE)
    signed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for bit in range(len(signed) * 8):
        turned = bytearray(signed)
        turned[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidError):
            await cursors.read(link, "jobs:a", base64.urlsafe_b64encode(turned).decode())


@pytest.mark.parametrize("text", ["x", "é", "!!!!", "A" * 200, "MTcwMDAwMDAwMDAwMCBqb2JfYWJj", "\x00"])
async def test_what_is_no_cursor_is_refused(link: RedisLink, text: str):
    with pytest.raises(InvalidError) as refusal:
        await cursors.read(link, "jobs:a", text)
    assert refusal.value.code == "invalid_cursor"


async def test_processes_that_start_at_once_agree_on_the_secret(link: RedisLink):
    made = await asyncio.gather(*(cursors.sign(link, "jobs:a", PLACE) for _ in range(20)))
    assert len(set(made)) == 1
