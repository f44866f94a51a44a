"""What a Redis, as it is configured, does to what the platform promises: looked at when a process starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from jobs.errors import UnavailableError

FSYNC = {
    "always": "nothing acknowledged is lost in a power cut",
    "everysec": "a power cut can lose up to the last second of what was acknowledged",
    "no": "the system decides when to write: a power cut can lose many seconds of what was acknowledged",
}
UNKNOWN = "an append-only file is kept, but how often it is flushed may not be asked for"
NO_AOF = "no append-only file: what was acknowledged since the last snapshot is lost when Redis stops"


@dataclass(frozen=True, slots=True)
class Durability:
    """`promise` is a sentence for people; `sound` whether a restart of Redis loses nothing acknowledged."""

    promise: str
    sound: bool


def require_no_eviction(info: Mapping[str, Any]) -> None:
    """Raises UnavailableError for a Redis that may throw jobs away."""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise UnavailableError(
            f"Redis may evict jobs: its maxmemory-policy is {policy}; set it to noeviction", code="storage_evicts"
        )


def durability(aof: bool, fsync: str) -> Durability:
    """What follows from `appendonly` and `appendfsync`."""
    return Durability(FSYNC.get(fsync, UNKNOWN), sound=fsync != "no") if aof else Durability(NO_AOF, sound=False)


def look(client: redis.Redis) -> Durability:
    """Asks a Redis. Raises UnavailableError when it evicts, or refuses us; redis.RedisError when it does not answer;
    blocks.
    """
    try:
        info = client.info()
    except redis.AuthenticationError as exc:
        raise UnavailableError("Redis refuses its user or password", code="storage_auth") from exc
    require_no_eviction(info)
    try:
        fsync = client.config_get("appendfsync").get("appendfsync") or "unknown"
    except redis.ResponseError:  # managed servers do not let their configuration be read
        fsync = "unknown"
    return durability(bool(info.get("aof_enabled")), fsync)
