"""The kill switch is turned on while many jobs ask the model: it hears of no further call, and open ones are cut off.

The judge is the model's own log: it says when each call came in, and when its connection was closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agent_core.types import Json
from jobs import fleet, keys
from jobs.records import Job
from tests.faults.conftest import DURABLE
from tests.faults.rig import Rig
from tests.faults.scale import Scale, scales
from tests.integration.harness import eventually

WORKERS = 2
LATENCY = 0.4
"""Seconds of each of the five model calls of a job that is busy."""
HANGS: list[Json] = [{"hang": 600}, {"hang": 600, "after": 0.5}]
"""Before the first byte, and in the middle of a stream; the second attempt at the turn is answered."""
NO_MORE_AFTER = 1.0
CLOSED_AFTER = 2.0
"""Seconds after the request; these are the promise."""


@scales(Scale(jobs=40, every=(0, 0)), Scale(jobs=200, every=(0, 0)), share=0.0)
async def test_nothing_is_asked_of_the_model_while_the_switch_is_on(
    rig: Rig, scale: Scale, report: Callable[..., None]
) -> None:
    half = scale.jobs // 2
    open_, busy = [[f"{kind}-{number}" for number in range(half)] for kind in ("open", "busy")]
    waiting = [f"waiting-{number}" for number in range(scale.jobs // 10)]
    for _ in range(WORKERS):
        rig.start_worker(concurrency=scale.jobs // WORKERS)
    await submit_open(rig, open_)
    for order in (*busy, *waiting):
        await rig.submit(order, latency=LATENCY)
    await eventually(lambda: all_busy(rig, busy), "a call of each busy job", within=30)

    asked = time.time()
    switch = await turn(rig, on=True)
    assert switch["evidence"]["calls_open"] > 0
    await eventually(lambda: nothing_runs(rig), "the end of what ran", within=30)
    held = [job for job in await jobs(rig) if job.status == "queued"]
    assert len(held) >= half + len(waiting)
    assert {(job.status, job.lost, job.token) for job in held} == {("queued", 0, "")}
    refused = await rig.client.refusal("/v1/jobs", {"agent": "payer", "input": "late"})
    assert (refused["status"], refused["code"]) == (503, "kill_switch")
    await start_everything_anew(rig)
    (switch,) = (await rig.client.send("GET", "/v1/kill_switch"))["data"]
    evidence = switch["evidence"]
    assert (evidence["calls_open"], evidence["calls_begun_since"]) == (0, 0)

    calls = await rig.processes.simulator.calls()
    last_begun = max(call["started_at"] for call in calls) - asked
    last_closed = max(call["ended_at"] for call in calls) - asked
    cut = [call for call in calls if call["outcome"] == "client_closed"]
    assert last_begun <= NO_MORE_AFTER
    assert last_closed <= CLOSED_AFTER
    assert len(cut) >= half

    assert not (await turn(rig, on=False))["on"]
    await rig.settle([*open_, *busy, *waiting], within=120)
    found = await rig.verify(least_completed=len(rig.ids))
    report(
        "kill switch",
        jobs=len(found.jobs),
        calls_cut=len(cut),
        last_call_begun_after=f"{max(0.0, last_begun):.2f} s",
        last_socket_closed_after=f"{last_closed:.2f} s",
        refused_by_redis=evidence["calls_refused_since"],
        lost=0,
        completed=sum(job.status == "completed" for job in found.jobs.values()),
    )


async def submit_open(rig: Rig, orders: list[str]) -> None:
    """Jobs whose last call hangs; returns when all of them do."""
    for number, order in enumerate(orders):
        turns = rig.turns(order)
        turns[-1]["faults"] = [HANGS[number % len(HANGS)]]
        rig.ids[order] = await rig.client.submit(order, *turns, session_id=f"s-{order}")

    async def all_hang() -> bool:
        return bool((await rig.processes.simulator.stats())["in_flight"] == len(orders))

    def told() -> str:
        return "the calls that hang\n" + "".join(worker.tail() for worker in rig.processes.workers)

    await eventually(all_hang, told, within=30)


async def all_busy(rig: Rig, orders: list[str]) -> bool:
    return {call["script_key"] for call in await rig.processes.simulator.calls()} >= set(orders)


async def nothing_runs(rig: Rig) -> bool:
    return all(job.status in ("queued", "completed") for job in await jobs(rig))


async def jobs(rig: Rig) -> list[Job]:
    return [job for job in await rig.store.get_many(list(rig.ids.values())) if job is not None]


async def turn(rig: Rig, *, on: bool) -> Json:
    return await rig.client.send("PUT", "/v1/kill_switch", {"scope": "global", "on": on})


async def start_everything_anew(rig: Rig) -> None:
    """Ends Redis, the API and a worker at once, and starts them again; returns when workers have had time to claim."""
    assert rig.api is not None
    rig.redis.kill()
    rig.api.kill()
    rig.processes.workers[0].kill()
    rig.redis.start(*DURABLE)
    rig.start_api()
    fresh = rig.start_worker()

    async def beat() -> float:
        found = [worker.name for worker in await fleet.workers(rig.link) if worker.pid == fresh.pid]
        return float(await rig.link.command("ZSCORE", keys.WORKERS, found[0])) if found else 0.0

    first = await eventually(beat, "the new worker's report", within=30)

    async def two_seconds_on() -> bool:
        return await beat() > first + 2000

    await eventually(two_seconds_on, "two seconds of the new worker's life")
