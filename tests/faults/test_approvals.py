"""Many jobs wait for a person: that costs a worker nothing, and each goes on once however often it is decided."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent_core.types import Json
from jobs import keys
from jobs.agents import AgentCatalogue
from tests.faults.rig import Rig, killed
from tests.integration.harness import WorkerProcess, eventually, script
from worker.loader import load_agents, published

AGENTS = str(Path(__file__).with_name("approvals.py"))
MIB = 1 << 20
MOST_GROWTH = 10 * MIB
WARM_UP = 200
"""Jobs that park before the first look at the memory: what a worker keeps of its first ones is not for the waiting."""
AT_ONCE = 50
DECIDERS = 2
"""How many decide about the same call at once."""


def pss(worker: WorkerProcess) -> int:
    """The proportional set size, in bytes."""
    return int(psutil.Process(worker.pid).memory_full_info().pss)


def chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@pytest.mark.parametrize(
    ("parked", "approved"),
    [pytest.param(300, 60, id="short"), pytest.param(10_000, 1_000, id="long", marks=pytest.mark.chaos)],
)
async def test_jobs_that_wait_cost_nothing_and_go_on_once(
    rig: Rig, parked: int, approved: int, report: Callable[..., None]
) -> None:
    await AgentCatalogue(rig.link).publish([published(a) for a in load_agents([AGENTS]).values()])
    worker = rig.processes.start_worker(agents=AGENTS, concurrency=100)
    await park(rig, "warm", WARM_UP)
    before = await settled(worker)
    await park(rig, "order", parked)
    growth = await settled(worker) - before
    assert growth <= MOST_GROWTH, f"{growth / MIB:.1f} MiB"
    found = await pending(rig, approved)
    outcomes = await decide(rig, found)
    assert outcomes == {200: approved, 409: approved * (DECIDERS - 1)}
    jobs = [approval["job_id"] for approval in found]
    for some in chunks(jobs, AT_ONCE):
        await asyncio.gather(*(completed(rig, job_id) for job_id in some))
    resumed = [[line.type for line in await rig.store.lines(job_id)].count("job.resumed") for job_id in jobs]
    assert resumed == [1] * approved
    made = Counter(line.split()[0] for line in (rig.folder / "release").read_text().splitlines())
    assert (len(made), set(made.values())) == (approved, {1})
    assert await rig.link.command("ZCARD", keys.PENDING_APPROVALS) == WARM_UP + parked - approved
    report(
        "approvals",
        parked=WARM_UP + parked,
        growth_of_the_worker=f"{growth / MIB:.1f} MiB",
        approved=approved,
        each_decided_by=DECIDERS,
        resumed_once=len(made),
        resumed_twice=0,
    )


async def park(rig: Rig, prefix: str, count: int) -> None:
    """Submits so many jobs, and returns when all of them wait."""
    waiting = int(await rig.link.command("ZCARD", keys.PENDING_APPROVALS))
    for some in chunks([f"{prefix}-{number}" for number in range(count)], 500):
        bodies = [body(rig, order) for order in some]
        answer = await rig.client.post("/v1/jobs/batch", {"jobs": bodies})
        assert all("job" in item for item in answer["data"]), answer

    async def parked() -> bool:
        return int(await rig.link.command("ZCARD", keys.PENDING_APPROVALS)) == waiting + count

    await eventually(parked, f"{count} parked jobs", within=900)


def body(rig: Rig, order: str) -> Json:
    turn = {"tool": "release", "input": {"folder": str(rig.folder), "order": order}}
    return {"agent": "gatekeeper", "input": script(turn, {"text": "done"}, key=order)}


async def settled(worker: WorkerProcess) -> int:
    """The worker's memory once two looks at it agree."""
    gc.collect()
    seen = [pss(worker)]

    async def steady() -> bool:
        await asyncio.sleep(0.3)
        seen.append(pss(worker))
        return abs(seen[-1] - seen[-2]) < MIB / 4

    await eventually(steady, "steady memory", within=30)
    return seen[-1]


async def pending(rig: Rig, count: int) -> list[Json]:
    found: list[Json] = []
    after = ""
    while len(found) < count:
        page = await rig.client.send("GET", f"/v1/approvals?status=pending&limit=200{after}")
        found += page["data"]
        after = f"&after={page['next_cursor']}"
    return found[:count]


async def decide(rig: Rig, approvals: list[Json]) -> Counter[int]:
    """Approves each, by several at once; how often each status was answered."""
    statuses: Counter[int] = Counter()

    async def one(approval: Json) -> None:
        path = f"/v1/approvals/{approval['id']}/decide"
        given = {"decision": "approve", "input_sha256": approval["input_sha256"]}
        statuses[await rig.client.status("POST", path, given)] += 1

    for some in chunks(approvals, AT_ONCE):
        await asyncio.gather(*(one(approval) for approval in some for _ in range(DECIDERS)))
    return statuses


async def completed(rig: Rig, job_id: str) -> None:
    async def ended() -> bool:
        return (await rig.store.get(None, job_id)).status == "completed"

    await eventually(ended, f"the end of {job_id}", within=120)


async def test_a_job_goes_on_although_the_api_died_between_decision_and_move(rig: Rig) -> None:
    await AgentCatalogue(rig.link).publish([published(a) for a in load_agents([AGENTS]).values()])
    rig.processes.start_worker(agents=AGENTS, concurrency=10)
    await park(rig, "order", 1)
    [approval] = await pending(rig, 1)
    assert rig.api is not None
    rig.api.kill()
    dying = rig.start_api("after_ruling=kill@1")
    asked = asyncio.create_task(decide(rig, [approval]))
    await killed([dying])
    rig.start_api()
    assert set(await asked) <= {200, 409}
    await completed(rig, approval["job_id"])
    assert (rig.folder / "release").read_text().count("\n") == 1
