"""What a tenant waits beside another with thousands of jobs, and what many tenants cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from bench.agents import bench
from bench.fill import fill
from bench.http import script
from bench.process import wait_for
from bench.report import Goal, Section, percentile
from bench.stack import TENANT, Stack
from jobs import keys
from jobs.link import RedisLink, connect
from jobs.queue import Tickets, queue_names

CROWD = 10_000
FEW = 10
LATENCY = 0.2
CONCURRENCY = 2
TENANTS = 1000
JOBS = 5_000
SWEEPS = 50


def measure(stack: Stack, scale: float) -> Section:
    """The few alone, then beside the crowd; then what claims and sweeps cost with one tenant and with many."""
    crowd, tenants, jobs = (int(size * scale) for size in (CROWD, TENANTS, JOBS))
    stack.worker(CONCURRENCY, stack.simulator(LATENCY))
    _few(stack, "warm-up")
    alone = _few(stack, "alone")
    fill(stack.redis_url, crowd, script(1))
    beside = _few(stack, "beside")
    stack.reset()
    section = Section(
        "fairness",
        f"{FEW} jobs of one call of {LATENCY * 1000:.0f} ms through one worker with {CONCURRENCY} at once: on an idle "
        f"platform, and beside {crowd:,} jobs of another tenant that were queued before. Then {jobs:,} jobs of one "
        f"tenant and of {tenants:,}, claimed 100 at once, and the sweep that every worker makes each second.",
    )
    section.add("p95 of the wait, beside ÷ alone", beside / alone, "×", Goal("<=", 5))
    section.add("alone", alone, "s")
    section.add("beside", beside, "s")
    for count in (1, tenants):
        claim, sweep = asyncio.run(_costs(stack, jobs, count))
        section.add(f"claim, CPU of Redis, tenants: {count:,}", claim, "µs a job")
        section.add(f"sweep, CPU of Redis, tenants: {count:,}", sweep, "µs")
        stack.reset()
    return section


def _few(stack: Stack, tenant: str) -> float:
    """Seconds from submit to start, p95."""
    fill(stack.redis_url, FEW, script(1), (tenant,))
    ended = keys.ended_jobs(tenant, "completed")
    wait_for(f"the jobs of {tenant}", lambda: stack.db.zcard(ended) == FEW, 120, interval=0.02)
    jobs: Sequence[Any] = stack.db.zrange(ended, 0, -1)
    times: list[Any] = [stack.db.hmget(keys.job(job.decode()), "created_ms", "started_ms") for job in jobs]
    return percentile([(int(started) - int(created)) / 1000 for created, started in times], 0.95)


async def _costs(stack: Stack, jobs: int, tenants: int) -> tuple[float, float]:
    """µs of a claim, and of a sweep while the jobs run."""
    await asyncio.to_thread(fill, stack.redis_url, jobs, "1", [f"{TENANT}-{number}" for number in range(tenants)])
    link = RedisLink(connect(stack.redis_url))
    tickets = Tickets(link)
    claim = partial(tickets.claim, queue_names(["default"]), [f"{bench.name}@{bench.version}"], most=100, lease=600)
    try:
        claimed = await _cpu(stack, lambda: claim(worker="bench"), jobs // 100)
        return claimed / 100, await _cpu(stack, tickets.overdue, SWEEPS)
    finally:
        await link.aclose()


async def _cpu(stack: Stack, act: Callable[[], Awaitable[object]], times: int) -> float:
    """µs that one of so many costs Redis."""
    before = stack.redis.cpu()
    for _ in range(times):
        await act()
    return (stack.redis.cpu() - before) / times * 1e6
