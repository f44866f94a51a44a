"""Workers that freeze for three leases and come back: whatever they were about to write is refused."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from memory.session import SessionMemory, SessionScope
from tests.faults.rig import LEASE, Rig, now, stopped
from tests.faults.scale import Rounds, Scale, scales
from tests.integration.harness import TENANT, WorkerProcess, eventually

EARLY = (
    ("after_restore", 1),
    ("before_reserve", 2),
    ("before_settle", 2),
    ("before_intent", 2),
    ("after_tool", 1),
)
LATE = (("before_session_append", 1), ("before_end", 1))
VICTIMS = EARLY + LATE
"""Failpoint and visit at which a worker stops itself: before each kind of write there is. What was stopped early wakes
up while the next attempt is in its last tool, what was stopped late when all is over.
"""
FENCED = "another attempt owns the job"
SHORT = Scale(jobs=len(VICTIMS), every=(0, 0))
LONG = Scale(jobs=len(VICTIMS), every=(0, 0), least_rounds=5)


@scales(SHORT, LONG, share=0.1)
async def test_zombies_are_refused(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    rounds = Rounds(scale)
    while rounds.another():
        await one_round(rig, f"r{rounds.number}")
        rig.processes.simulator.forget()
    report("zombies", frozen_workers=rounds.number * len(VICTIMS), stale_writes_accepted=0)


async def one_round(rig: Rig, name: str) -> None:
    """Freezes a worker before each kind of write, lets others take over, and thaws it."""
    orders = [f"{name}-{number}" for number in range(SHORT.jobs)]
    early, late = orders[: len(EARLY)], orders[len(EARLY) :]
    zombies = [*await frozen(rig, LATE, late), *await frozen(rig, EARLY, early, hold=f"go-{name}")]
    silent, looked = now(), rig.paid("look")
    survivor = rig.start_worker()
    await rig.settle(late)
    await eventually(lambda: rig.paid("look") == looked + len(early), "the next attempts are in their last tool")
    await asyncio.sleep(max(0.0, silent + 3 * LEASE - now()))  # the experiment: three leases of silence
    taken_over = await written(rig, orders)
    for zombie in zombies:
        zombie.signal(signal.SIGCONT)
    for zombie in zombies:
        await refused(zombie)
    assert await written(rig, orders) == taken_over
    rig.release(f"go-{name}")
    await rig.settle(early)
    await rig.verify(least_completed=len(orders))
    for worker in (*zombies, survivor):
        assert worker.alive
        worker.kill()


async def frozen(
    rig: Rig, victims: tuple[tuple[str, int], ...], orders: list[str], hold: str = ""
) -> list[WorkerProcess]:
    """Workers that have stopped themselves, each with one of the orders."""
    for order in orders:
        await rig.submit(order, hold)
    # without its heartbeat, a worker learns from nothing but the refusal of its writes that it was taken over
    plans = [f"{point}=stop@{visit},before_beat=hang" for point, visit in victims]
    workers = [rig.start_worker(plan, concurrency=1) for plan in plans]
    for worker in workers:
        await stopped(worker)
    return workers


async def refused(zombie: WorkerProcess) -> None:
    """Returns when the worker has said that it was."""
    await eventually(lambda: zombie.logged(FENCED), lambda: f"its refusal\n{zombie.tail()}")


async def written(rig: Rig, orders: list[str]) -> dict[str, tuple[int, int]]:
    """The lengths of each order's journal and of its session."""
    memory = SessionMemory(rig.link)
    return {
        order: (
            len(await rig.store.lines(rig.ids[order])),
            (await memory.read(SessionScope(TENANT, f"s-{order}"))).length,
        )
        for order in orders
    }
