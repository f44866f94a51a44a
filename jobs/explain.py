"""Why a job is not finished: the one gate that holds it at this moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from agent_core.types import Json
from jobs import keys, queue_keys
from jobs.blobs import resolve
from jobs.fleet import WorkerReport, workers
from jobs.journal import Line, parse_line
from jobs.kill_switch import KillSwitches, switches_of
from jobs.limits import LimitBook
from jobs.link import RedisLink, milliseconds
from jobs.queue import LEASE_MARGIN
from jobs.records import Job, rfc3339
from jobs.store import JobStore

Gate = Literal[
    "scheduled",
    "kill_switch",
    "queued_behind",
    "session",
    "concurrency",
    "no_worker",
    "no_version",
    "no_capacity",
    "backoff",
    "batch",
    "children",
    "paused",
    "budget",
    "requires_action",
    "running",
    "ended",
]
NEWEST = 64
"""Journal lines looked at, from the end."""


async def explain(store: JobStore, link: RedisLink, job: Job) -> Json:
    """Which gate holds the job, in a word and in a sentence, with what there is to know about it.

    `place` is the number of its tenant's jobs before it in its queue, `workers` the number of live workers that serve
    its pool.
    """
    if job.ended:
        return _answer(job, "ended", f"it is {job.status}: {job.stop_reason or 'no reason was recorded'}")
    newest = await _newest(link, job)
    since = newest[0].ms if newest else job.created_ms
    match job.status:
        case "scheduled":
            return _answer(
                job, "scheduled", f"it is to start at {rfc3339(job.spec.run_at)}", next_at=rfc3339(job.spec.run_at)
            )
        case "paused":
            return _paused(job, newest, since)
        case "requires_action":
            calls = _waiting_calls(newest)
            detail, known = _action(job, calls), {"stop_reason": job.stop_reason, "calls": calls}
            return _answer(job, "requires_action", detail, since=rfc3339(since), **known)
        case "running":
            return await _running(link, job, newest)
        case _:
            return await _queued(store, link, job, newest)


def _answer(job: Job, gate: Gate, detail: str, **more: Any) -> Json:
    known = {"place": None, "since": rfc3339(job.ended_ms or job.created_ms), "workers": None, "next_at": None}
    return {"job_id": job.id, "status": job.status, "gate": gate, "detail": detail} | known | more


async def _newest(link: RedisLink, job: Job) -> list[Line]:
    """The newest lines of the journal, the newest first."""
    found = await link.command("XREVRANGE", keys.journal(job.id), "+", "-", "COUNT", NEWEST)
    return await resolve(link, [parse_line(item) for item in found])


def _paused(job: Job, newest: Sequence[Line], since: int) -> Json:
    known: Json = {"since": rfc3339(since)}
    if job.stop_reason != "budget_exceeded" or not newest:
        return _answer(job, "paused", "it was paused, and waits to be resumed", **known)
    held_by, detail = newest[0].data["budget"], newest[0].data["detail"]
    period = held_by.rpartition("|")[2]
    wait = "until the limit is raised" if period == "total" else f"until the limit is raised or the {period} is over"
    return _answer(job, "budget", f"{detail}; it waits {wait}", **known, budget=held_by)


def _waiting_calls(newest: Sequence[Line]) -> list[Json]:
    """The calls that the job was parked with and nobody has decided about."""
    decided: set[str] = set()
    for line in newest:
        if line.type == "approval.decided":
            decided.add(line.data["call_id"])
        elif line.type == "job.requires_action":
            return [call for call in line.data.get("calls", []) if call["call_id"] not in decided]
    return []


def _action(job: Job, calls: Sequence[Json]) -> str:
    names = ", ".join(sorted({call["tool"] for call in calls}))
    if job.stop_reason == "needs_reconcile":
        return f"a call of {names or 'a tool'} may or may not have happened, and a person has to say which (reconcile)"
    ids = ", ".join(call["approval_id"] for call in calls if "approval_id" in call)
    return f"a person has to decide about {names or 'an action'}{f': {ids}' if ids else ''}"


# ---- running


async def _running(link: RedisLink, job: Job, newest: Sequence[Line]) -> Json:
    step = max((line.data["step"] for line in newest if "step" in line.data), default=0)
    doing = _doing(newest)
    lease = await link.command("ZSCORE", queue_keys.wip(job.queue), f"{job.id}:{job.token}")
    asked = f"; a {job.flag} was asked for" if job.flag else ""
    return _answer(
        job,
        "running",
        f"attempt {job.attempts} runs on {job.worker}, step {step}: {doing['what']}{asked}",
        since=rfc3339(job.since_ms),
        attempt=job.attempts,
        worker=job.worker,
        step=step,
        doing=doing,
        lease_ends_at=rfc3339(int((float(lease) - LEASE_MARGIN) * 1000)) if lease is not None else None,
    )


def _doing(newest: Sequence[Line]) -> Json:
    """What the newest lines say is open: a model call, or tool calls."""
    closed: set[str] = set()
    tools: list[Line] = []
    for line in newest:
        match line.type:
            case "model.completed" | "model.failed" | "tool.completed":
                closed.add(line.data["call_id"])
            case "model.started" if line.data["call_id"] not in closed:
                model = line.data["model"]
                return {"kind": "model", "what": f"waits for {model}", "model": model, "since": rfc3339(line.ms)}
            case "tool.requested" if line.data["call_id"] not in closed:
                tools.append(line)
            case "job.started":
                break
            case _:
                pass
    if tools:
        names = sorted({str(line.data["name"]) for line in tools})
        what = f"runs {', '.join(names)}"
        return {"kind": "tool", "what": what, "tools": names, "since": rfc3339(tools[-1].ms)}
    return {"kind": "loop", "what": "between two calls", "since": rfc3339(newest[0].ms) if newest else None}


# ---- queued


async def _queued(store: JobStore, link: RedisLink, job: Job, newest: Sequence[Line]) -> Json:
    since, due = await _waiting_times(link, job)
    on = await KillSwitches(link).on()
    for switch in (on[name] for name in switches_of(job.tenant, job.spec) if name in on):
        return _answer(job, "kill_switch", str(switch.refusal()), since=rfc3339(since))
    now = milliseconds()
    if due is not None and due > now:
        return await _put_off(store, link, job, newest, since, due)
    ahead = await _ahead_in_session(link, job)
    if ahead is not None:
        detail = f"its session runs one job at a time, and {ahead} is before it"
        return _answer(job, "session", detail, since=rfc3339(since), ahead=ahead)
    full = await _full_limit(link, job)
    if full is not None:
        of = {"tenant": "the tenant", "agent": f"the agent {job.spec.agent}"}.get(full["scope"].partition(":")[0])
        of = of or f"the key {full['scope'].partition(':')[2]}"
        detail = f"{full['running']} jobs of {of} run, and no more than {full['limit']} may at once"
        place = await store.tickets.place(job)
        return _answer(job, "concurrency", detail, place=place, since=rfc3339(since), limit=full)
    return await _for_a_worker(store, link, job, since)


async def _put_off(store: JobStore, link: RedisLink, job: Job, newest: Sequence[Line], since: int, due: int) -> Json:
    about = next((line.data for line in newest if not line.type.startswith("child.")), {})
    if "children" in about:
        still = await store.children(job.id)
        detail = f"it waits for {len(still)} of {len(about['children'])} jobs that it started: {', '.join(still[:5])}"
        return _answer(job, "children", detail, since=rfc3339(since), children=still)
    if batch_id := about.get("batch_id"):
        look = await link.command("ZSCORE", keys.BATCHES, batch_id)
        next_at = None if look is None else rfc3339(int(float(look)))
        detail = f"its model call is with the batch {batch_id}, which had not ended when it was last looked at"
        return _answer(job, "batch", detail, since=rfc3339(since), next_at=next_at, batch_id=batch_id)
    why = about.get("detail") or about.get("why")
    detail = f"it was put off until {rfc3339(due)}{f': {why}' if why else ''}"
    return _answer(job, "backoff", detail, since=rfc3339(since), next_at=rfc3339(due))


async def _waiting_times(link: RedisLink, job: Job) -> tuple[int, int | None]:
    since = await link.command("ZSCORE", keys.QUEUED, job.id)
    due = await link.command("ZSCORE", keys.DUE, job.id)
    return (job.created_ms if since is None else int(float(since))), (None if due is None else int(float(due)))


async def _ahead_in_session(link: RedisLink, job: Job) -> str | None:
    if job.spec.session_id is None:
        return None
    first = await link.command("LINDEX", keys.session_jobs(job.tenant, job.spec.session_id), 0)
    return first.decode() if first is not None and first.decode() != job.id else None


async def _full_limit(link: RedisLink, job: Job) -> Json | None:
    """The first limit of running jobs that has no room for this one."""
    limits = {limits.scope: limits.running for limits in await LimitBook(link).all(job.tenant)}
    asked = {scope: limits.get(scope) for scope in ("tenant", f"agent:{job.spec.agent}")}
    if job.spec.concurrency is not None:
        asked[f"key:{job.spec.concurrency['key']}"] = job.spec.concurrency["limit"]
    for scope, most in asked.items():
        running = await link.command("SCARD", queue_keys.running(job.tenant, scope))
        if most is not None and running >= most:
            return {"scope": scope, "limit": most, "running": running}
    return None


async def _for_a_worker(store: JobStore, link: RedisLink, job: Job, since: int) -> Json:
    pool, version = job.spec.pool, f"{job.spec.agent}@{job.spec.agent_version}"
    serving = [worker for worker in await workers(link) if pool in worker.pools and not worker.draining]
    able = [worker for worker in serving if version in worker.versions]
    place = await store.tickets.place(job)
    gate, detail = _gate(pool, version, serving, able, place)
    if await link.command("EXISTS", queue_keys.SUSPENDED):
        gate, detail = "paused", "all workers are suspended (rq suspend)"
    return _answer(job, gate, detail, place=place, since=rfc3339(since), workers=len(serving))


def _gate(
    pool: str, version: str, serving: Sequence[WorkerReport], able: Sequence[WorkerReport], place: int | None
) -> tuple[Gate, str]:
    if not serving:
        return "no_worker", f"no live worker serves the pool {pool}"
    if not able:
        return "no_version", f"{len(serving)} live worker(s) serve the pool {pool}, and none can run {version}"
    busy, slots = sum(worker.running for worker in able), sum(worker.concurrency for worker in able)
    before = "it is next in its queue" if not place else f"{place} job(s) of its tenant are before it in its queue"
    if busy >= slots:
        return "no_capacity", f"all {slots} slots of {len(able)} worker(s) are taken; {before}"
    return "queued_behind", f"{before}; {slots - busy} of {slots} slots are free"
