"""Redis is killed again and again under load, or freezes: nothing acknowledged is lost, and nothing is stranded."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable

from jobs import keys
from tests.faults.conftest import DURABLE
from tests.faults.rig import LEASE, Rig
from tests.faults.scale import Rounds, Scale, scales
from tests.integration.harness import eventually

CLIENTS = 4
LATENCY = 0.15
PAUSE = 0.25
FROZEN_JOBS = 20


@scales(Scale(jobs=40, every=(0.8, 1.6)), Scale(jobs=400, every=(5.0, 40.0), least_rounds=4), share=0.2)
async def test_redis_is_killed_under_load(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    rounds, kills = Rounds(scale), 0
    workers = [rig.start_worker(concurrency=30) for _ in range(2)]
    await registered(rig, len(workers))  # one that finds no Redis at its start leaves with status 3
    while rounds.another():
        orders = [f"r{rounds.number}-{number}" for number in range(scale.jobs)]
        done = asyncio.Event()
        killing = asyncio.create_task(kill_until(done, rig, scale.every))
        try:
            await submit(rig, orders)
            await rig.settle(orders, within=600)
        finally:
            done.set()
            kills += await killing
        evidence = await rig.verify(least_completed=len(orders) * rounds.number)
        rig.processes.simulator.forget()
    assert kills >= 2
    assert all(worker.alive for worker in workers), [worker.tail() for worker in workers]
    report("Redis killed", jobs=len(evidence.jobs), kills=kills, stranded=0, acknowledged_and_lost=0)


async def registered(rig: Rig, workers: int) -> None:
    """Returns when RQ knows so many workers."""

    async def known() -> bool:
        return int(await rig.link.command("SCARD", "rq:workers")) == workers

    await eventually(known, "the registration of the workers")


async def submit(rig: Rig, orders: list[str]) -> None:
    """Several clients, each with every so many of the orders."""

    async def client(number: int) -> None:
        for order in orders[number::CLIENTS]:
            await rig.submit(order, latency=LATENCY)
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(number))


async def kill_until(done: asyncio.Event, rig: Rig, every: tuple[float, float]) -> int:
    """Kills Redis every few seconds and starts it again; how often it did."""
    kills = 0
    while not done.is_set():
        try:
            await asyncio.wait_for(done.wait(), random.uniform(*every))
        except TimeoutError:
            await asyncio.to_thread(rig.redis.kill)
            await asyncio.sleep(random.uniform(0, 0.5))
            await asyncio.to_thread(rig.redis.start, *DURABLE)
            kills += 1
    return kills


@scales(Scale(jobs=FROZEN_JOBS, every=(2 * LEASE,) * 2), Scale(jobs=FROZEN_JOBS, every=(15, 15)), share=0.0)
async def test_redis_freezes(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    workers = [rig.start_worker() for _ in range(2)]
    held = [f"held-{number}" for number in range(scale.jobs)]
    calling = [f"calling-{number}" for number in range(scale.jobs)]
    for order in held:
        await rig.submit(order, hold="go")
    await eventually(lambda: rig.paid("look") == len(held), "all are in their tools")
    for order in calling:
        await rig.submit(order, latency=0.5)
    rig.redis.signal(signal.SIGSTOP)
    rig.release("go")
    await asyncio.sleep(scale.every[0])  # the experiment: Redis is silent for so long
    rig.redis.signal(signal.SIGCONT)
    await rig.settle([*held, *calling])
    evidence = await rig.verify(least_completed=2 * scale.jobs)
    assert {(job.attempts, job.lost) for job in evidence.jobs.values()} == {(1, 0)}
    assert await rig.link.command("HGET", keys.STATS, "rescues_total") is None
    assert all(worker.alive for worker in workers)
    report("Redis frozen", seconds=scale.every[0], jobs=len(evidence.jobs), rescues=0)
