"""A job delegates to others over the fleet, and workers die: each part is done once, and the end of the whole is the
end of every part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from agent_core.types import Budget, Json
from jobs import actions
from jobs.agents import AgentCatalogue
from jobs.audit import audit
from jobs.journal import Line
from jobs.kill_switch import KillSwitches
from jobs.records import Job, JobSpec
from tests.faults.checker import endings, owners, steps
from tests.faults.evidence import payments
from tests.faults.rig import Rig
from tests.faults.scale import Scale, scales
from tests.integration.harness import TENANT, eventually, says, script

CHILDREN = 8
HOLD = "go"


def task(rig: Rig, order: str) -> str:
    """What a child does: it pays, and waits for the experiment."""
    given = {"folder": str(rig.folder), "order": order}
    pays, looks = {"tool": "charge", "input": given}, {"tool": "look", "input": {**given, "hold": HOLD}}
    return script(pays, looks, says(f"paid {order}"), key=order)


def delegates(agent: str, text: str) -> Json:
    return {"name": "delegate", "input": {"agent": agent, "task": text}}


async def submit(rig: Rig, *turns: Json, key: str) -> Job:
    version = (await AgentCatalogue(rig.link).get("chief")).version
    spec = JobSpec(agent="chief", agent_version=version, input=script(*turns, key=key))
    return (await rig.store.submit(TENANT, spec, Budget(usd="5"))).job


async def family_of(rig: Rig, parent_id: str) -> list[Job]:
    """The job's children, also those that have ended."""
    lines = await rig.store.lines(parent_id)
    ids = [line.data["job_id"] for line in lines if line.type == "child.started"]
    return [job for job in await rig.store.get_many(ids) if job is not None]


async def ends(rig: Rig, job_id: str, status: str) -> Job:
    async def probe() -> Job | None:
        job = await rig.store.get(TENANT, job_id)
        assert not job.ended or job.status == status, (job.status, job.error)
        return job if job.ended else None

    found: Job = await eventually(probe, f"the end of {job_id}", within=60)
    return found


async def sound(rig: Rig, *job_ids: str) -> dict[str, list[Line]]:
    """The journals, in which nothing is wrong."""
    journals = {job_id: await rig.store.lines(job_id) for job_id in job_ids}
    faults = [fault for lines in journals.values() for look in (endings, steps, owners) for fault in look(lines)]
    assert not faults, faults
    return journals


@scales(Scale(jobs=1, every=(0, 0)), Scale(jobs=20, every=(0, 0)), share=0.0)
async def test_a_worker_dies_with_half_of_the_children(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    room = scale.jobs * CHILDREN // 2
    workers = [rig.start_worker(concurrency=room) for _ in range(2)]
    parents = []
    for number in range(scale.jobs):
        parts = [delegates("payer", task(rig, f"{number}-{part}")) for part in range(CHILDREN)]
        parents.append(await submit(rig, {"tools": parts}, says("all paid"), key=f"parent-{number}"))
    await eventually(lambda: rig.paid("look") == CHILDREN * scale.jobs, "all children in their tools", within=60)
    workers[0].kill()
    rig.release(HOLD)
    ratios, rescues = [], 0
    for parent in [await ends(rig, parent.id, "completed") for parent in parents]:
        children = await family_of(rig, parent.id)
        assert parent.output == "all paid"
        assert [child.status for child in children] == ["completed"] * CHILDREN
        journals = await sound(rig, parent.id, *(child.id for child in children))
        told = Counter(line.type for line in journals[parent.id] if line.type.startswith("child."))
        assert told == {"child.started": CHILDREN, "child.completed": CHILDREN}
        assert parent.counters["spent"] == parent.counters["cost"] + sum(c.counters["cost"] for c in children)
        rescues += sum(line.type == "job.rescued" for lines in journals.values() for line in lines)
        ratios.append(lasted(parent) / max(map(lasted, children)))
    assert rescues == room, "half of the children were the dead worker's"
    paid = Counter(payment.order for payment in payments(rig.folder) if payment.way == "charge")
    assert set(paid.values()) == {1}
    assert len(paid) == CHILDREN * scale.jobs
    found = await audit(rig.link, TENANT)
    assert found.exact, found.differences
    report(
        "children",
        parents=scale.jobs,
        children=len(paid),
        rescued=rescues,
        makespan_to_slowest_child=f"{max(ratios):.2f}",
        done_twice=0,
    )


def lasted(job: Job) -> int:
    assert job.ended_ms is not None
    return job.ended_ms - job.created_ms


async def test_a_cancel_reaches_the_last_generation_although_their_worker_is_dead(rig: Rig) -> None:
    """The one in the middle still ran when its worker died, so nobody ends its child but a reaper."""
    worker = rig.start_worker()
    own = {"name": "look", "input": {"folder": str(rig.folder), "order": "middle", "hold": HOLD}}
    middle = script({"tools": [delegates("payer", task(rig, "leaf")), own]}, says("done"), key="middle")
    top = await submit(rig, {"tools": [delegates("chief", middle)]}, says("done"), key="top")
    await eventually(lambda: rig.paid("look") == 2, "both in their tools", within=30)
    worker.kill()
    await actions.cancel(rig.store, TENANT, top.id)
    (below,) = await family_of(rig, top.id)
    (leaf,) = await family_of(rig, below.id)
    assert (below.status, leaf.status, leaf.flag) == ("running", "running", None)
    rig.start_worker()
    family = [top.id, below.id, leaf.id]
    for job_id in family:
        job = await ends(rig, job_id, "cancelled")
        assert job.counters["reserved"] == 0
    await sound(rig, *family)
    assert (await rig.store.tickets.overdue()).orphans == []


async def test_the_kill_switch_of_the_first_stops_all_below_it(rig: Rig) -> None:
    rig.start_worker()
    switches, switch = KillSwitches(rig.link), f"agent:{TENANT}:chief"
    middle = script({"tools": [delegates("payer", task(rig, "leaf"))]}, says("done"), key="middle")
    top = await submit(rig, {"tools": [delegates("chief", middle)]}, says("done"), key="top")
    await eventually(lambda: rig.paid("look") == 1, "the leaf in its tool", within=30)
    (below,) = await family_of(rig, top.id)
    (leaf,) = await family_of(rig, below.id)
    await switches.turn_on(switch, by="the suite")

    async def stopped() -> bool:
        return (await rig.store.get(TENANT, leaf.id)).status == "queued"

    await eventually(stopped, "the leaf, of another agent, off its worker")
    assert await rig.store.tickets.running() == 0
    rig.release(HOLD)
    await switches.turn_off(switch)
    for job in (leaf, below, top):
        await ends(rig, job.id, "completed")
    await sound(rig, top.id, below.id, leaf.id)
