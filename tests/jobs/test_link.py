"""The road to Redis: in order, in few round trips, and over faults of Redis without losing or repeating a write."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from agent_core.types import Budget
from jobs.errors import UnavailableError
from jobs.link import MOST_IN_A_PIPELINE, RedisLink, connect
from jobs.scripts import script
from jobs.store import JobStore
from tests.jobs.driver import SPEC, TENANT, Driver
from tests.redis_server import RedisServer

UNTIL_WRITES_WAIT = 0.2
"""Seconds in which a patient link has tried in vain at least once."""


@asynccontextmanager
async def linked(url: str, *, patient: bool = False, timeout: float = 5.0) -> AsyncIterator[RedisLink]:
    link = RedisLink(connect(url, timeout), patient=patient)
    try:
        yield link
    finally:
        await link.aclose()


def round_trips(link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the pipelines that the link sends from here on."""
    sizes: list[int] = []
    plain = link._execute

    def counted(commands: list[tuple[Any, ...]]) -> list[Any]:
        sizes.append(len(commands))
        return plain(commands)

    monkeypatch.setattr(link, "_execute", counted)
    return sizes


# ---- order and batches


async def test_what_is_asked_for_together_goes_in_one_round_trip(
    link: RedisLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = round_trips(link, monkeypatch)
    answers = await asyncio.gather(*(link.command("INCR", "n") for _ in range(100)))
    assert answers == list(range(1, 101)), "each gets its own answer, in the order of the calls"
    assert sizes == [100]


async def test_what_comes_during_a_round_trip_goes_together_after_it(
    link: RedisLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = round_trips(link, monkeypatch)
    first = link.command("BLPOP", "never", 0.1)
    await asyncio.sleep(0)
    others = [link.command("INCR", "n") for _ in range(50)]
    await asyncio.gather(first, *others)
    assert sizes == [1, 50]


async def test_a_round_trip_has_a_largest_size(link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = round_trips(link, monkeypatch)
    count = MOST_IN_A_PIPELINE + 10
    answers = await asyncio.gather(*(link.command("RPUSH", "l", n) for n in range(count)))
    assert answers == list(range(1, count + 1))
    assert sizes == [MOST_IN_A_PIPELINE, 10]


async def test_an_error_of_one_command_is_its_own(link: RedisLink) -> None:
    good, bad, late = link.command("SET", "s", 1), link.command("LPUSH", "s", 1), link.command("GET", "s")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        await bad
    assert (await good, await late) == (b"OK", b"1") or await late == b"1"


async def test_a_caller_that_gave_up_disturbs_nobody(link: RedisLink) -> None:
    given_up, other = link.command("INCR", "n"), link.command("INCR", "n")
    given_up.cancel()
    assert await other == 2


async def test_scripts_and_commands_keep_their_order_from_the_first_use_on(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that Redis has not seen must not be overtaken by what was sent after it."""
    async with linked(redis_url) as other:
        await other.script(script("flag"), ["x"], ["cancel"])
    async with linked(redis_url) as link:
        await link.command("SCRIPT", "FLUSH")
        sizes = round_trips(link, monkeypatch)
        submitted = JobStore(link).submit(TENANT, SPEC, Budget())
        job = (await submitted).job
        assert await JobStore(link).tickets.place(job) == 0
        assert sizes[0] == 3, "the record, its ticket and its tenant went together, and nothing had to be sent again"


async def test_a_script_that_redis_has_forgotten_is_loaded_again(link: RedisLink) -> None:
    driver = Driver(JobStore(link))
    first = await driver.submit()
    await link.command("SCRIPT", "FLUSH")
    second = await driver.submit()
    assert [c.job_id for c in await driver.claim(10)] == [first.id, second.id]


# ---- faults


async def test_a_patient_link_holds_writes_until_redis_is_back_and_delivers_each_once(own_redis: RedisServer) -> None:
    own_redis.kill()
    own_redis.start("--appendonly", "yes", "--appendfsync", "always")
    async with linked(own_redis.url, patient=True) as link:
        driver = Driver(JobStore(link))
        job, attempt = await driver.start()
        await driver.write(job, attempt, 1, "before")
        own_redis.kill()
        writes = [asyncio.create_task(driver.write(job, attempt, n, f"during {n}")) for n in range(2, 12)]
        done, waiting = await asyncio.wait(writes, timeout=UNTIL_WRITES_WAIT)
        assert not done
        own_redis.start("--appendonly", "yes", "--appendfsync", "always")
        assert await asyncio.gather(*waiting) == [0] * 10
        assert await driver.states(job) == ["before", *(f"during {n}" for n in range(2, 12))]
        await driver.end(job, attempt)
        assert await driver.status(job) == "completed"


async def test_what_may_not_be_repeated_is_not_held(own_redis: RedisServer) -> None:
    async with linked(own_redis.url, patient=True) as link:
        store = JobStore(link)
        await link.command("PING")
        own_redis.kill()
        with pytest.raises(UnavailableError):
            await store.tickets.claim(["q"], [], most=1, lease=5, worker="w")


async def test_an_impatient_link_says_so_when_redis_is_gone_and_works_again_after(own_redis: RedisServer) -> None:
    async with linked(own_redis.url) as link:
        await link.command("PING")
        own_redis.kill()
        with pytest.raises(UnavailableError) as caught:
            await link.command("PING")
        assert caught.value.code == "unavailable"
        own_redis.start()
        assert (await Driver(JobStore(link)).submit()).status == "queued"


async def test_an_impatient_link_waits_for_a_frozen_redis_no_longer_than_its_timeout(own_redis: RedisServer) -> None:
    async with linked(own_redis.url, timeout=0.3) as link:
        await link.command("PING")
        own_redis.signal(signal.SIGSTOP)
        async with asyncio.timeout(10):
            with pytest.raises(UnavailableError):
                await link.command("PING")
        own_redis.signal(signal.SIGCONT)
        assert await link.command("ECHO", "back") == b"back"


async def test_a_full_redis_is_told_from_one_that_is_away_and_nothing_is_half_done(own_redis: RedisServer) -> None:
    async with linked(own_redis.url) as link:
        driver = Driver(JobStore(link))
        running, attempt = await driver.start()
        await link.command("CONFIG", "SET", "maxmemory", "1")
        before = await link.command("DBSIZE")
        for refused in (driver.submit(), link.command("SET", "a", 1), driver.write(running, attempt, 1, "a")):
            with pytest.raises(UnavailableError) as caught:
                await refused
            assert caught.value.code == "storage_full"
        assert await link.command("DBSIZE") == before
        await link.command("CONFIG", "SET", "maxmemory", "0")
        await driver.write(running, attempt, 1, "a")
        assert await driver.states(running) == ["a"]


async def test_a_redis_that_cannot_save_refuses_writes(own_redis: RedisServer) -> None:
    async with linked(own_redis.url) as link:
        await link.command("SET", "a", 1)
        await link.command("CONFIG", "SET", "save", "3600 1")
        (own_redis.directory / "dump.rdb").mkdir()
        await link.command("BGSAVE")
        async with asyncio.timeout(20):
            while (await link.command("INFO", "persistence"))["rdb_last_bgsave_status"] != "err":
                pass
        for refused in (Driver(JobStore(link)).submit(), link.command("SET", "a", 1)):
            with pytest.raises(UnavailableError) as caught:
                await refused
            assert caught.value.code == "storage_read_only"


# ---- the end


async def test_what_is_still_held_at_the_end_is_refused(own_redis: RedisServer) -> None:
    link = RedisLink(connect(own_redis.url), patient=True)
    await link.command("PING")
    own_redis.kill()
    held = [link.command("INCR", "n")]
    await asyncio.sleep(UNTIL_WRITES_WAIT)
    held.append(link.command("INCR", "n"))
    await link.aclose()
    async with asyncio.timeout(10):
        for future in held:
            with pytest.raises(UnavailableError):
                await future


async def test_a_closed_link_refuses_at_once(redis_url: str) -> None:
    link = RedisLink(connect(redis_url))
    await link.command("PING")
    await link.aclose()
    async with asyncio.timeout(10):
        with pytest.raises(UnavailableError):
            await link.command("PING")


async def test_what_cannot_be_written_down_fails_alone(redis_url):
    link = RedisLink(connect(redis_url))
    bad, good = link.command("SET", "k", "\ud800"), link.command("SET", "k", "v")
    with pytest.raises(UnicodeEncodeError):
        await asyncio.wait_for(bad, 5)
    assert await asyncio.wait_for(good, 5)
    assert await asyncio.wait_for(link.command("GET", "k"), 5) == b"v"
    await link.aclose()
