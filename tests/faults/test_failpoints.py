"""SIGKILL at every failpoint: no step runs twice, no payment is repeated, what is unclear waits for a person."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from agent_core.failpoints import FAILPOINTS
from tests.faults.rig import Rig, killed
from tests.faults.scale import Rounds, Scale, scales
from tests.integration.harness import eventually

VICTIMS = (
    *((name, 1) for name in ("after_claim", "after_restore", "after_reserve", "before_settle", "after_intent")),
    *((name, 1) for name in ("after_tool", "before_session_append", "after_session_append", "before_end", "after_end")),
    # the second and the third payment of a job: the one that cannot be asked about, and the one that can
    *((name, 2) for name in ("before_reserve", "after_settle", "before_intent", "after_intent", "before_tool")),
    *((name, 2) for name in ("after_tool", "after_result")),
    *((name, 3) for name in ("after_intent", "after_tool")),
    *((name, 1) for name in ("before_rescue", "after_rescue")),
)
"""Failpoint and visit at which a worker kills itself; each has one job at a time."""
DRAINING = ("before_hand_back", "after_hand_back")
DELIVERING = ("before_delivery", "after_delivery")
"""See `tests.faults.test_webhooks`."""
DECIDING = ("after_ruling",)
"""See `tests.faults.test_approvals`."""
BATCHING = ("after_submit",)
"""See `tests.integration.test_batches`."""
SCHEDULING = ("after_slots", "after_slot_submit")
"""See `tests.faults.test_schedules`."""
BEATING = "before_beat"
ACCEPTING = "api_after_submit"
SHORT = Scale(jobs=len(VICTIMS), every=(0, 0))
LONG = Scale(jobs=len(VICTIMS), every=(0, 0), least_rounds=20)


def test_the_suite_kills_at_every_failpoint() -> None:
    others = {*DRAINING, *DELIVERING, *DECIDING, *BATCHING, *SCHEDULING, BEATING, ACCEPTING}
    assert {name for name, _ in VICTIMS} | others == set(FAILPOINTS)


@scales(SHORT, LONG, share=0.35)
async def test_a_kill_at_every_failpoint(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    rounds = Rounds(scale)
    while rounds.another():
        await one_round(rig, f"r{rounds.number}")
        rig.processes.simulator.forget()
        rig.processes.workers.clear()
    evidence = await rig.evidence()
    report(
        "no step twice",
        kills=rounds.number * (len(VICTIMS) + len(DRAINING) + 2),
        jobs=len(evidence.jobs),
        steps_re_run=0,
        ambiguous_and_parked=sum(rig.decided.values()),
        of_which_had_happened=rig.decided["happened"],
    )


async def one_round(rig: Rig, name: str) -> None:
    """Kills once at each failpoint, and checks what is left."""
    orders = [f"{name}-{number}" for number in range(SHORT.jobs)]
    held = [f"{name}-{point}" for point in (*DRAINING, BEATING)]
    await killed_with_a_tool_running(rig, held)
    await killed_while_accepting(rig, orders)
    victims = [rig.start_worker(f"{point}=kill@{visit}", concurrency=1) for point, visit in VICTIMS]
    await killed(victims)
    survivors = [rig.start_worker() for _ in range(2)]
    await rig.settle([*orders, *held])
    await rig.verify(least_completed=int(0.9 * len(orders)))
    for survivor in survivors:
        survivor.signal(signal.SIGTERM)
    assert [await survivor.exited(within=5) for survivor in survivors] == [0, 0]


async def killed_with_a_tool_running(rig: Rig, orders: list[str]) -> None:
    """Two workers die while they hand their jobs back in a drain, and one when it wants to renew its lease."""
    before = rig.paid("look")
    for order in orders:
        await rig.submit(order, hold=f"hold-{order}")
    workers = [rig.start_worker(f"{point}=kill", concurrency=1, drain_seconds=0) for point in DRAINING]
    await eventually(lambda: rig.paid("look") == before + len(workers), "each has a job")
    for worker in workers:
        worker.signal(signal.SIGTERM)
    await killed(workers)
    await killed([rig.start_worker(f"{BEATING}=kill", concurrency=1)])
    for order in orders:
        rig.release(f"hold-{order}")


async def killed_while_accepting(rig: Rig, orders: list[str]) -> None:
    """The API dies before it answers the first order; the client tries again with the same key."""
    assert rig.api is not None
    rig.api.kill()
    dying = rig.start_api(f"{ACCEPTING}=kill@1")
    async with asyncio.TaskGroup() as group:
        group.create_task(rig.submit(orders[0]))
        await killed([dying])
        rig.start_api()
    for order in orders[1:]:
        await rig.submit(order)
