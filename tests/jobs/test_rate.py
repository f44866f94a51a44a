"""The token bucket against a model in exact fractions, by a clock of the test's own, and by that of Redis."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import keys
from jobs.limits import LimitBook
from jobs.link import RedisLink, connect
from jobs.rate import Rate, RateLimiter, Standing
from jobs.recent import Recent
from jobs.scripts import script
from tests.redis_server import RedisServer

MINUTE = 60_000_000
START = 1_790_000_000_000_000
CLOCKED = (
    script("rate")
    .text.replace("redis.call('TIME')", "{ ARGV[4], ARGV[5] }")
    .replace("'PEXPIRE', KEYS[1]", "'HSET', KEYS[1], 'expires_in'")
)
"""The script by a clock that the test hands in; the bucket does not expire by the real one, and says when it would."""


@dataclass
class Model:
    """What a bucket must be."""

    rate: int
    burst: int
    level: Fraction = Fraction(0)
    at: int = START

    def take(self, now: int, tokens: int) -> tuple[int, int, int]:
        elapsed = max(0, now - self.at)
        self.level, self.at = min(Fraction(self.burst), self.level + Fraction(elapsed * self.rate, MINUTE)), now
        taken = self.level >= tokens
        self.level -= tokens if taken else 0
        whole = math.floor(self.level)
        missing = Fraction(0) if self.level == self.burst else whole + 1 - self.level
        return int(taken), whole, math.ceil(missing * MINUTE / self.rate)


@pytest.fixture(scope="module")
def server(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


Rates = st.one_of(st.integers(1, 20), st.integers(1, 1_000_000))
Steps = st.lists(st.tuples(st.one_of(st.integers(0, MINUTE), st.integers(0, 2000)), st.sampled_from([1, 1, 1, 0])))


@settings(max_examples=150, deadline=None)
@given(rate=Rates, burst=Rates, steps=Steps)
def test_the_bucket_is_the_models(server, rate, burst, steps):
    server.delete("bucket")
    now, model = START, Model(rate, burst, Fraction(burst))
    for elapsed, tokens in steps:
        now += elapsed
        given = (rate, burst, tokens, now // 1_000_000, now % 1_000_000)
        answer = tuple(server.eval(CLOCKED, 1, "bucket", *given))
        assert answer == model.take(now, tokens)
        if answer[0] and tokens:  # when it is no more, it is full
            assert 0 <= int(server.hget("bucket", "expires_in")) - (burst - model.level) * 60_000 / rate <= 2


@settings(max_examples=100, deadline=None)
@given(rate=Rates, burst=st.integers(1, 50), gaps=st.lists(st.integers(0, 500_000), min_size=1, max_size=80))
def test_in_no_time_are_there_more_requests_than_the_limit(server, rate, burst, gaps):
    server.delete("bucket")
    now, allowed = START, list[int]()
    for gap in gaps:
        now += gap
        if server.eval(CLOCKED, 1, "bucket", rate, burst, 1, now // 1_000_000, now % 1_000_000)[0]:
            allowed.append(now)
    for first, since in enumerate(allowed):
        for last in range(first, len(allowed)):
            assert last - first + 1 <= burst + Fraction((allowed[last] - since) * rate, MINUTE)


def test_a_clock_that_is_set_back_does_not_stop_the_filling(server):
    server.delete("bucket")
    at = START // 1_000_000
    assert server.eval(CLOCKED, 1, "bucket", 60, 1, 1, at, 0)[0] == 1
    assert server.eval(CLOCKED, 1, "bucket", 60, 1, 1, at - 3600, 0)[0] == 0
    assert server.eval(CLOCKED, 1, "bucket", 60, 1, 1, at - 3599, 0)[0] == 1


async def test_a_tenant_without_a_limit_has_no_bucket_and_costs_one_look(link):
    recent = Recent(3600)
    limiter = RateLimiter(link, recent)
    assert await limiter.take("t") is None
    await LimitBook(link).put("t", "tenant", {"requests_per_minute": 60})
    assert await limiter.take("t") is None  # it has not heard of it yet
    recent.forget(keys.limits("t"))
    standing = await limiter.take("t")
    assert standing is not None
    assert (standing.rate, standing.allowed, standing.left, standing.more_in) == (Rate(60, 60), True, 59, 1)


async def test_processes_share_a_bucket_and_tenants_do_not(link, redis_url):
    await LimitBook(link).put("t", "tenant", {"requests_per_minute": 1, "burst": 30})
    await LimitBook(link).put("u", "tenant", {"requests_per_minute": 1, "burst": 1})
    links = [RedisLink(connect(redis_url)) for _ in range(2)]
    limiters = [RateLimiter(each, Recent()) for each in links]

    async def take(limiter: RateLimiter, tenant: str, tokens: int = 1) -> Standing:
        standing = await limiter.take(tenant, tokens)
        assert standing is not None
        return standing

    standings = await asyncio.gather(*(take(limiter, "t") for limiter in limiters for _ in range(50)))
    assert sum(standing.allowed for standing in standings) == 30
    assert (await take(limiters[0], "u")).allowed
    refused = await take(limiters[1], "u")
    assert (refused.allowed, refused.left) == (False, 0)
    assert 1 <= refused.more_in <= 60
    assert (await take(limiters[1], "u", 0)).allowed  # a look is never refused
    for each in links:
        await each.aclose()


@pytest.mark.parametrize(("rate", "seconds"), [(Rate(60, 60), 60), (Rate(60, 10), 10), (Rate(7, 5), 43)])
def test_the_window_is_the_time_in_which_the_burst_comes_back(rate, seconds):
    assert rate.window == seconds
