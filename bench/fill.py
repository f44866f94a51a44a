"""Jobs put straight into the store, without HTTP, for measurements that begin at the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent_core.types import Budget
from bench.agents import bench
from bench.stack import TENANT
from jobs.link import RedisLink, connect
from jobs.records import JobSpec
from jobs.store import JobStore

AT_ONCE = 200


def fill(redis_url: str, jobs: int, text: str = "1", tenants: Sequence[str] = (TENANT,)) -> None:
    """Submits so many jobs whose input is `text`, of the tenants in turns."""
    asyncio.run(_fill(redis_url, jobs, text, tenants))


async def _fill(redis_url: str, jobs: int, text: str, tenants: Sequence[str]) -> None:
    link = RedisLink(connect(redis_url))
    store = JobStore(link)
    spec = JobSpec(agent=bench.name, agent_version=bench.version, input=text)
    try:
        for first in range(0, jobs, AT_ONCE):
            batch = range(first, min(first + AT_ONCE, jobs))
            of = (tenants[number % len(tenants)] for number in batch)
            await asyncio.gather(*(store.submit(tenant, spec, Budget(usd="10", steps=100)) for tenant in of))
    finally:
        await link.aclose()
