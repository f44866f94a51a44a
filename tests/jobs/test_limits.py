from __future__ import annotations

import pytest

from jobs import keys
from jobs.errors import InvalidError
from jobs.limits import LimitBook, Limits


async def test_a_limit_is_set_kept_and_lifted(link):
    book = LimitBook(link)
    assert await book.all("t") == [Limits()]
    assert await book.put("t", "tenant", {"running": 5, "requests_per_minute": 60}) == Limits("tenant", 5, 60)
    assert await book.put("t", "tenant", {"burst": 7, "running": None}) == Limits("tenant", None, 60, 7)
    assert await book.put("t", "agent:b", {"running": 2}) == Limits("agent:b", 2)
    await book.put("t", "agent:a", {"running": 1})
    assert await book.all("t") == [Limits("tenant", None, 60, 7), Limits("agent:a", 1), Limits("agent:b", 2)]
    assert await book.put("t", "agent:b", {"running": None}) == Limits("agent:b")
    assert await book.all("t") == [Limits("tenant", None, 60, 7), Limits("agent:a", 1)]
    assert await book.all("other") == [Limits()]


async def test_the_claim_script_finds_them_under_these_names(link):
    book = LimitBook(link)
    await book.put("t", "tenant", {"running": 5})
    await book.put("t", "agent:echo", {"running": 2})
    found = await link.command("HMGET", keys.limits("t"), "running", "running:agent:echo", "running:agent:other")
    assert found == [b"5", b"2", None]


@pytest.mark.parametrize(
    ("scope", "name"),
    [("agent:a", "burst"), ("agent:", "running"), ("user:x", "running"), ("agent:a b", "running"), ("", "running")],
)
async def test_a_limit_that_no_scope_has_is_refused(link, scope, name):
    with pytest.raises(InvalidError) as refused:
        await LimitBook(link).put("t", scope, {name: 1})
    assert refused.value.code == "invalid_scope"
    assert await link.command("EXISTS", keys.limits("t")) == 0
