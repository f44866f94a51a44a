"""Redis is killed again and again under load, or freezes: nothing acknowledged is lost, and nothing is stranded."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable

from jobs import keys
from tests.faults.conftest import DURABLE
from tests.faults.rig import LEASE, Rig, now
from tests.faults.scale import Rounds, Scale, scales
from tests.integration.harness import eventually

CLIENTS = 4
LATENCY = 0.15
PAUSE = 0.25
FROZEN_JOBS = 20


@scales(Scale(jobs=40, every=(0.8, 1.6)), Scale(jobs=400, every=(5.0, 9.0)), share=0.2)
async def test_redis_is_killed_under_load(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    rounds, killer = Rounds(scale), Killer(rig, scale.every)
    workers = [rig.start_worker(concurrency=30) for _ in range(2)]
    await registered(rig, len(workers))  # one that finds no Redis at its start leaves with status 3
    while rounds.another():
        orders = [f"r{rounds.number}-{number}" for number in range(scale.jobs)]
        async with killer:
            await submit(rig, orders)
            await rig.settle(orders, within=600)
        evidence = await rig.verify(least_completed=len(orders) * rounds.number)
        rig.processes.simulator.forget()
    assert killer.kills >= 2
    assert all(worker.alive for worker in workers), [worker.tail() for worker in workers]
    report("Redis killed", jobs=len(evidence.jobs), kills=killer.kills, stranded=0, acknowledged_and_lost=0)


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


class Killer:
    """While entered, kills Redis every few seconds and starts it again. The time to the next kill runs on from one
    round to the next: a round may be shorter than that.
    """

    def __init__(self, rig: Rig, every: tuple[float, float]) -> None:
        self.kills = 0
        self._rig = rig
        self._every = every
        self._left = random.uniform(*every)

    async def __aenter__(self) -> None:
        self._done = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def __aexit__(self, *_: object) -> None:
        self._done.set()
        await self._task  # Redis runs after it

    async def _run(self) -> None:
        while not self._done.is_set():
            begun = now()
            try:
                await asyncio.wait_for(self._done.wait(), self._left)
                self._left = max(0.0, self._left - (now() - begun))
            except TimeoutError:
                await asyncio.to_thread(self._rig.redis.kill)
                await asyncio.sleep(random.uniform(0, 0.5))
                await asyncio.to_thread(self._rig.redis.start, *DURABLE)
                self.kills += 1
                self._left = random.uniform(*self._every)


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
