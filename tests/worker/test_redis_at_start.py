"""A worker looks at its Redis before it takes a job from it."""

import pytest

from jobs.durability import durability, look, require_no_eviction
from jobs.errors import UnavailableError
from jobs.link import connect
from worker.errors import StartError
from worker.runtime import look_at_redis
from worker.settings import Settings


def settings(redis_url):
    return Settings.model_validate({"redis_url": redis_url})


async def test_a_redis_that_refuses_the_password_stops_the_start(guarded_redis):
    with pytest.raises(StartError, match=r"NIGHTSHIFT_REDIS_URL is wrong: Redis refuses its user or password"):
        await look_at_redis(settings(guarded_redis))


async def test_a_redis_that_evicts_stops_the_start(redis_url):
    client = connect(redis_url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StartError, match=r"NIGHTSHIFT_REDIS_URL is wrong: .* allkeys-lru; set it to noeviction"):
            await look_at_redis(settings(redis_url))
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.close()
    await look_at_redis(settings(redis_url))


def test_what_follows_from_the_configuration(redis_url):
    client = connect(redis_url)
    try:
        client.config_set("appendonly", "yes")
        client.config_set("appendfsync", "always")
        assert look(client).promise == "nothing acknowledged is lost in a power cut"
        client.config_set("appendonly", "no")
        assert not look(client).sound
    finally:
        client.config_set("appendfsync", "everysec")
        client.close()


@pytest.mark.parametrize(
    ("aof", "fsync", "sound"),
    [
        (True, "always", True),
        (True, "everysec", True),
        (True, "no", False),
        (True, "hidden", True),
        (False, "always", False),
    ],
)
def test_only_an_append_only_file_that_is_flushed_is_sound(aof, fsync, sound):
    assert durability(aof, fsync).sound is sound


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-random", "volatile-ttl"])
def test_every_policy_that_evicts_is_refused(policy):
    with pytest.raises(UnavailableError) as refused:
        require_no_eviction({"maxmemory_policy": policy})
    assert refused.value.code == "storage_evicts"
