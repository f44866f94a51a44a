"""Tenants share one worker, and limits of running jobs hold while workers are killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from agent_core.types import Budget
from jobs.journal import LAST_EVENTS, Line
from jobs.limits import LimitBook
from jobs.records import Job, JobSpec
from tests.faults.rig import AGENTS, Rig, percentile
from tests.faults.scale import Rounds, Scale, scales
from tests.integration.harness import TENANT, eventually, script
from worker.loader import load_agents

AT_ONCE = 200
CROWD = "crowd"
FEW = 10
LATENCY = 0.1
WORKERS = 3
LIMITS = {"tenant": 6, "key:k": 2, "key:l": 3}


# ---- fair share


async def submit(rig: Rig, tenant: str, jobs: int) -> list[str]:
    """Jobs of one short model call each."""
    agent = load_agents([AGENTS])["payer"]
    said = script({"text": "done", "latency": LATENCY})
    spec = JobSpec(agent="payer", agent_version=agent.version, input=said)
    ids: list[str] = []
    for first in range(0, jobs, AT_ONCE):
        batch = range(first, min(first + AT_ONCE, jobs))
        made = await asyncio.gather(*(rig.store.submit(tenant, spec, Budget(usd="1")) for _ in batch))
        ids += [submitted.job.id for submitted in made]
    return ids


async def ended(rig: Rig, ids: Sequence[str], within: float = 60.0) -> list[Job]:
    async def probe() -> list[Job] | None:
        jobs = [job for job in await rig.store.get_many(ids) if job is not None and job.ended]
        return jobs if len(jobs) == len(ids) else None

    found: list[Job] = await eventually(probe, "the jobs have ended", within)
    return found


def wait_of(jobs: Sequence[Job]) -> float:
    """Seconds, p95."""
    return percentile([((job.started_ms or 0) - job.created_ms) / 1000 for job in jobs], 0.95)


@scales(Scale(jobs=300, every=(0, 0)), Scale(jobs=10_000, every=(0, 0)), share=0.0)
async def test_a_crowd_of_one_tenant_does_not_starve_another(
    rig: Rig, scale: Scale, report: Callable[..., None]
) -> None:
    rig.start_worker(concurrency=2)
    await ended(rig, await submit(rig, "warm-up", 1))
    alone = wait_of(await ended(rig, await submit(rig, "few", FEW)))
    crowd = await submit(rig, CROWD, scale.jobs)
    few = await ended(rig, await submit(rig, "few", FEW))
    begun = sorted(job.started_ms or 0 for job in few)
    others = [job.started_ms for job in await rig.store.get_many(crowd) if job is not None and job.started_ms]
    between = sum(begun[0] <= started <= begun[-1] for started in others)
    assert between <= 2 * FEW, "the crowd began more jobs meanwhile than taking turns gives it"
    if scale.jobs >= 10_000:
        assert wait_of(few) <= 5 * alone
    report(
        "fair share",
        queued=scale.jobs,
        p95_wait_alone_seconds=round(alone, 3),
        beside_the_crowd_seconds=round(wait_of(few), 3),
        begun_by_the_crowd_meanwhile=between,
    )


# ---- limits


def most_at_once(journals: Sequence[Sequence[Line]]) -> int:
    """How many attempts there were at once; one begins with `job.started` and lasts to the next word of the job."""
    steps: list[tuple[int, int]] = []
    for lines in journals:
        running = False
        for line in lines:
            leaves = line.type in LAST_EVENTS or line.type in ("job.queued", "job.rescued", "job.requires_action")
            if running and leaves:
                steps.append((line.ms, -1))
                running = False
            if line.type == "job.started":
                steps.append((line.ms, 1))
                running = True
        assert not running
    most = now = 0
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


@scales(Scale(jobs=40, every=(0.5, 1.2)), Scale(jobs=400, every=(1.0, 3.0)), share=0.1)
async def test_no_limit_is_passed_while_workers_are_killed(rig: Rig, scale: Scale, report: Callable[..., None]) -> None:
    seed = random.randrange(10**6)
    chance, rounds, kills = random.Random(seed), Rounds(scale), 0
    await LimitBook(rig.link).put(TENANT, "tenant", {"running": LIMITS["tenant"]})
    workers = [rig.start_worker(concurrency=20) for _ in range(WORKERS)]
    keyed: dict[str, list[str]] = {"": [], "k": [], "l": []}

    async def order(number: int) -> None:
        key = ("", "k", "l")[number % 3]
        name = f"r{rounds.number}-{number}"
        given = {"concurrency": {"key": key, "limit": LIMITS[f"key:{key}"]}} if key else {}
        rig.ids[name] = await rig.client.submit(name, *rig.turns(name, latency=LATENCY), **given)
        keyed[key].append(rig.ids[name])

    while rounds.another():
        await asyncio.gather(*map(order, range(scale.jobs)))
        settling = asyncio.create_task(rig.settle([f"r{rounds.number}-{n}" for n in range(scale.jobs)], within=600))
        while not settling.done():
            await asyncio.wait([settling], timeout=chance.uniform(*scale.every))
            if not settling.done():
                victim = chance.randrange(WORKERS)
                await asyncio.to_thread(workers[victim].kill)
                workers[victim] = rig.start_worker(concurrency=20)
                kills += 1
        await settling
    evidence = await rig.verify(least_completed=int(0.9 * scale.jobs) * rounds.number)
    journals = evidence.journals
    found = {"tenant": most_at_once(list(journals.values()))}
    found |= {f"key:{key}": most_at_once([journals[job_id] for job_id in keyed[key]]) for key in ("k", "l")}
    assert all(0 < found[scope] <= most for scope, most in LIMITS.items()), f"seed {seed}: {found}"
    assert kills, f"seed {seed}: nobody was killed"
    report("limits of running jobs", jobs=len(evidence.jobs), kills=kills, most_at_once=found)
