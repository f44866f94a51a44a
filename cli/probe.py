"""A look at Redis from outside, for what the API cannot tell while it is down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis import RedisError

from cli.errors import UnreachableError, UsageError
from jobs import fleet
from jobs.errors import UnavailableError
from jobs.link import RedisLink, connect
from jobs.settings import without_secrets


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What matters of a Redis. `fsync` is always, everysec or no, and "unknown" where it may not be asked for."""

    version: str
    policy: str
    aof: bool
    fsync: str


@asynccontextmanager
async def redis(url: str) -> AsyncIterator[RedisLink]:
    """A link to Redis, closed afterwards. Raises UsageError for a URL that is none."""
    try:
        link = RedisLink(connect(url, timeout=2.0))
    except ValueError as exc:
        raise UsageError(f"NIGHTSHIFT_REDIS_URL is wrong: {exc}") from None
    try:
        yield link
    finally:
        await link.aclose()


async def ping(link: RedisLink, url: str) -> None:
    """Raises UnreachableError when Redis does not answer, or answers with an error; UsageError when it refuses the
    password.
    """
    try:
        await link.command("PING")
    except UnavailableError as exc:
        if exc.code == "storage_auth":
            raise UsageError("NIGHTSHIFT_REDIS_URL is wrong: Redis at "
                             f"{without_secrets(url)} refuses its user or password") from exc  # fmt: skip
        raise UnreachableError(f"Redis at {without_secrets(url)} does not answer: start it, or mend "
                               "NIGHTSHIFT_REDIS_URL") from exc  # fmt: skip
    except RedisError as exc:
        raise UnreachableError(f"Redis at {without_secrets(url)} refuses us: {exc}") from exc


async def workers(link: RedisLink) -> list[fleet.WorkerReport]:
    """The live workers."""
    return await fleet.workers(link)


async def facts(link: RedisLink) -> RedisFacts:
    """The version and settings of a Redis that answers."""
    raw = await link.command("INFO")
    info = {str(name): str(value) for name, value in raw.items()} if isinstance(raw, dict) else _lines(raw.decode())
    try:
        answer = await link.command("CONFIG", "GET", "appendfsync")
    except RedisError:  # managed ones do not allow it
        answer = []
    words = [word.decode() for pair in (answer.items() if isinstance(answer, dict) else [answer]) for word in pair]
    return RedisFacts(
        version=info.get("redis_version", "unknown"),
        policy=info.get("maxmemory_policy", "unknown"),
        aof=info.get("aof_enabled") == "1",
        fsync=words[1] if len(words) == 2 else "unknown",
    )


def _lines(info: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
