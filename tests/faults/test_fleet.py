"""Workers and the API are killed at random while clients submit: no job is lost, none is doubled, none ends twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from tests.faults.rig import Rig
from tests.faults.scale import Rounds, Scale, scales

WORKERS = 3
CLIENTS = 8
LATENCY = 0.25
"""Seconds of each of a job's five model calls: long enough for kills to meet jobs that run."""
PAUSE = 0.3
"""Seconds between two orders of a client."""
UNANSWERED = 0.05
"""The share of submits that the API writes down and does not live to answer."""
SHORT = Scale(jobs=60, every=(0.6, 1.4))
LONG = Scale(jobs=600, every=(2.0, 5.0))


@scales(SHORT, LONG, share=0.25)
async def test_workers_and_the_api_are_killed(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    seed = random.randrange(10**6)
    rounds, killer = Rounds(scale), Killer(rig, random.Random(seed), scale.every)
    while rounds.another():
        orders = [f"r{rounds.number}-{number}" for number in range(scale.jobs)]
        async with killer:
            await submit(rig, orders)
            await rig.settle(orders, within=600)
        evidence = await rig.verify(least_completed=int(0.9 * scale.jobs) * rounds.number)
        rig.processes.simulator.forget()
    rescued = sum(line.type == "job.rescued" for lines in evidence.journals.values() for line in lines)
    assert rescued, f"seed {seed}: no kill met a job: {killer.kills}"
    assert killer.kills["api"], f"seed {seed}: the API was not killed"
    report(
        "no job lost",
        jobs=len(evidence.jobs),
        kills_of_workers=killer.kills["worker"],
        of_the_api=killer.kills["api"],
        rescues=rescued,
        failed_as_poison=sum(job.status == "failed" for job in evidence.jobs.values()),
        lost=0,
        ended_twice=0,
        doubled=0,
    )


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
    """While entered, kills one of its workers or the API every few seconds; what dies is started again."""

    def __init__(self, rig: Rig, chance: random.Random, every: tuple[float, float]) -> None:
        self.kills: Counter[str] = Counter()
        self._rig = rig
        self._chance = chance
        self._every = every
        self._workers = [rig.start_worker(concurrency=20) for _ in range(WORKERS)]

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(self._kill()), asyncio.create_task(self._revive_api())]

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended

    async def _kill(self) -> None:
        assert self._rig.api is not None
        self._rig.api.kill()  # the one that follows has the failpoint
        while True:
            for what in ("worker", "api", "worker", "worker"):
                await asyncio.sleep(self._chance.uniform(*self._every))
                if what == "api":
                    self._rig.api.kill()
                else:
                    await asyncio.to_thread(self._kill_a_worker)

    def _kill_a_worker(self) -> None:
        number = self._chance.randrange(WORKERS)
        self._workers[number].kill()
        self._workers[number] = self._rig.start_worker(concurrency=20)
        self.kills["worker"] += 1

    async def _revive_api(self) -> None:
        while True:
            if self._rig.api is None or not self._rig.api.alive:
                self._rig.start_api(f"api_after_submit=kill:{UNANSWERED}")
                self.kills["api"] += 1
            await asyncio.sleep(0.05)
