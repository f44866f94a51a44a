"""A worker is told to stop while it runs many jobs: it goes in time, and others go on from the last recorded step."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.faults.rig import Rig, now
from tests.faults.scale import Scale, scales
from tests.integration.harness import eventually

GRACE = 1
"""Seconds; what `harness.SETTINGS` gives to running jobs."""


@scales(Scale(jobs=40, every=(0, 0)), Scale(jobs=200, every=(0, 0)), share=0.0)
async def test_a_drain(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    orders = [f"o-{number}" for number in range(scale.jobs)]
    first = rig.start_worker(concurrency=scale.jobs)
    for order in orders:
        await rig.submit(order, hold="go")
    await eventually(lambda: rig.paid("look") == len(orders), "all are in their tools", within=60)
    told = now()
    first.signal(signal.SIGTERM)
    assert await first.exited(within=GRACE + 2) == 0
    took = now() - told
    jobs = [await rig.store.get(None, job_id) for job_id in rig.ids.values()]
    assert {(job.status, job.token, job.lost) for job in jobs} == {("queued", "", 0)}
    rig.release("go")
    second = rig.start_worker()
    await rig.settle(orders)
    evidence = await rig.verify(least_completed=len(orders))
    assert {job.attempts for job in evidence.jobs.values()} == {2}
    assert sum(job.counters["model_calls"] for job in evidence.jobs.values()) == 5 * len(orders)
    assert second.alive
    report("drain", jobs=len(orders), grace_seconds=GRACE, exit_seconds=round(took, 2), steps_re_run=0)
