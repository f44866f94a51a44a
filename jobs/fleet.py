"""The live workers, as they report themselves with each heartbeat."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, field

from agent_core.types import Json
from jobs import keys
from jobs.link import RedisLink, milliseconds


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One worker process. `versions` are the "agent@version" that it can run; `simulated` says that its model is the
    simulated one; `mcp_away` are the MCP servers that it cannot reach.
    """

    name: str
    host: str
    pid: int
    pools: list[str]
    versions: list[str]
    concurrency: int
    running: int
    draining: bool = False
    simulated: bool = False
    mcp_away: list[str] = field(default_factory=list)


async def report(link: RedisLink, worker: WorkerReport, ttl: int) -> None:
    """Says that the worker is alive; the report is forgotten after `ttl` seconds."""
    now = milliseconds()
    await asyncio.gather(
        link.command("SET", keys.worker(worker.name), json.dumps(asdict(worker)), "EX", ttl),
        link.command("ZADD", keys.WORKERS, now, worker.name),
        link.command("ZREMRANGEBYSCORE", keys.WORKERS, "-inf", now - 3_600_000),
    )


async def forget(link: RedisLink, name: str) -> None:
    """Takes a worker that ends off the list."""
    await asyncio.gather(link.command("DEL", keys.worker(name)), link.command("ZREM", keys.WORKERS, name))


async def workers(link: RedisLink) -> list[WorkerReport]:
    """The workers whose last report is not forgotten."""
    names = [name.decode() for name in await link.command("ZRANGE", keys.WORKERS, 0, -1)]
    texts = await asyncio.gather(*(link.command("GET", keys.worker(name)) for name in names))
    return [_parsed(json.loads(text)) for text in texts if text]


def _parsed(fields: Json) -> WorkerReport:
    """A report; one of a newer worker may say more than this process knows."""
    return WorkerReport(**{name: fields[name] for name in WorkerReport.__slots__ if name in fields})
