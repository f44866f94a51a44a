from __future__ import annotations

import pytest

from agent_core.types import Budget
from jobs import actions, queue_keys
from jobs.approvals import Request
from jobs.explain import explain
from jobs.fleet import WorkerReport, report
from jobs.kill_switch import KillSwitches
from jobs.limits import LimitBook
from jobs.link import milliseconds
from jobs.moves import Attempt
from jobs.queue import queue_names
from jobs.records import JobSpec
from jobs.rulings import Ruling, decide

TENANT = "t"


async def submitted(store, **spec):
    return (await store.submit(TENANT, JobSpec(agent="a", agent_version="v", input="x", **spec), Budget())).job


async def explained(store, job):
    return await explain(store, store.link, await store.get(TENANT, job.id))


async def worker(store, name="w", *, pools=("default",), versions=("a@v",), concurrency=2, running=0, draining=False):
    told = WorkerReport(name, "host", 1, list(pools), list(versions), concurrency, running, draining)
    await report(store.link, told, ttl=60)


async def claimed(store):
    (claim,) = await store.tickets.claim(queue_names(["default"]), ["a@v"], most=1, lease=30, worker="w")
    return claim, Attempt(claim.token, claim.queue)


@pytest.mark.parametrize(
    ("workers", "gate"),
    [
        ([], "no_worker"),
        ([{"pools": ["gpu"]}], "no_worker"),
        ([{"draining": True}], "no_worker"),
        ([{"versions": ["a@older"]}], "no_version"),
        ([{"running": 2}], "no_capacity"),
        ([{"running": 2}, {"versions": ["b@v"]}], "no_capacity"),
        ([{"running": 2}, {"running": 1}], "queued_behind"),
    ],
)
async def test_a_queued_job_waits_for_the_worker_that_is_missing(store, workers, gate):
    job = await submitted(store)
    for number, told in enumerate(workers):
        await worker(store, f"w{number}", **told)
    said = await explained(store, job)
    assert (said["gate"], said["place"], said["status"]) == (gate, 0, "queued")
    assert said["workers"] == sum("default" in w.get("pools", ["default"]) and not w.get("draining") for w in workers)


async def test_the_place_counts_the_tickets_before_it(store):
    await worker(store)
    jobs = [await submitted(store) for _ in range(3)]
    assert [(await explained(store, job))["place"] for job in jobs] == [0, 1, 2]


async def test_a_job_behind_another_of_its_session_names_it(store):
    first, second = [await submitted(store, session_id="s") for _ in range(2)]
    said = await explained(store, second)
    assert (said["gate"], said["ahead"]) == ("session", first.id)
    assert (await explained(store, first))["gate"] == "no_worker"


async def test_a_scheduled_job_says_when(store):
    said = await explained(store, await submitted(store, run_at=milliseconds() + 3_600_000))
    assert said["gate"] == "scheduled"
    assert said["next_at"] in said["detail"]


async def test_a_job_that_was_put_off_says_until_when_and_why(store):
    await submitted(store)
    claim, attempt = await claimed(store)
    job = await store.get(TENANT, claim.job_id)
    await store.move(job, "hand_back", {"detail": "the model is overloaded"}, attempt=attempt, due_ms=-60_000)
    said = await explained(store, job)
    assert said["gate"] == "backoff"
    assert said["next_at"] is not None
    assert "the model is overloaded" in said["detail"]


async def test_a_paused_and_a_parked_job_wait_for_a_person(store):
    paused = await submitted(store)
    await actions.pause(store, TENANT, paused.id)
    assert (await explained(store, paused))["gate"] == "paused"
    parked = await submitted(store)
    _, attempt = await claimed(store)
    asks = [Request("c1", "refund", {}), Request("c2", "wipe", {})]
    calls = [{"call_id": r.call_id, "tool": r.name, "input": {}, "approval_id": r.approval_id} for r in asks]
    await store.move(parked, "park", {"calls": calls}, attempt=attempt, stop_reason="approval", asks=asks)
    said = await explained(store, parked)
    assert (said["gate"], said["calls"]) == ("requires_action", calls)
    assert all(word in said["detail"] for word in ("refund", "wipe", asks[0].approval_id, asks[1].approval_id))
    await decide(store, TENANT, asks[0].approval_id, Ruling("deny"), "key_1")
    said = await explained(store, parked)
    assert said["calls"] == calls[1:]
    assert "refund" not in said["detail"]


async def test_a_running_job_says_what_it_does_now(store):
    job = await submitted(store)
    claim, attempt = await claimed(store)
    model = {"call_id": "m1", "step": 1, "model": "claude", "reserved": 1}
    tools = [
        {"call_id": f"t{n}", "step": 1, "name": name, "input": {}, "effect": "read"} for n, name in enumerate("ab")
    ]
    said = []
    for number, (type_, data) in enumerate(
        [
            ("model.started", model),
            ("model.completed", model),
            ("tool.requested", tools[0]),
            ("tool.requested", tools[1]),
            ("tool.completed", tools[0]),
            ("tool.completed", tools[1]),
        ]
    ):
        await store.record(job.id, claim.token, number + 1, {}, [(type_, data)])
        said.append(await explained(store, job))
    assert {answer["gate"] for answer in said} == {"running"}
    assert [answer["doing"]["what"] for answer in said] == [
        "waits for claude",
        "between two calls",
        "runs a",
        "runs a, b",
        "runs b",
        "between two calls",
    ]
    assert (said[0]["worker"], said[0]["attempt"], said[0]["step"]) == ("w", 1, 1)
    assert said[0]["lease_ends_at"] > said[0]["since"]
    await store.move(job, "complete", attempt=attempt, stop_reason="end_turn")
    ended = await explained(store, job)
    assert (ended["gate"], ended["detail"]) == ("ended", "it is completed: end_turn")


async def test_a_new_attempt_does_not_show_what_the_lost_one_did(store):
    job = await submitted(store)
    claim, attempt = await claimed(store)
    model = {"call_id": "m1", "step": 1, "model": "claude", "reserved": 1}
    await store.record(job.id, claim.token, 1, {}, [("model.started", model)])
    await store.move(await store.get(TENANT, job.id), "hand_back", attempt=attempt)
    await claimed(store)
    said = await explained(store, job)
    assert (said["attempt"], said["doing"]["kind"]) == (2, "loop")


async def test_a_fleet_that_is_suspended_is_said_to_be(store):
    job = await submitted(store)
    await worker(store)
    await store.link.command("SET", queue_keys.SUSPENDED, 1)
    assert (await explained(store, job))["gate"] == "paused"


@pytest.mark.parametrize("switch", ["global", f"tenant:{TENANT}"])
async def test_a_job_that_a_kill_switch_stops_is_said_to_be(store, switch):
    job = await submitted(store)
    await worker(store)
    await KillSwitches(store.link).turn_on("agent:other:clerk", "key_1")
    assert (await explained(store, job))["gate"] == "queued_behind"
    await KillSwitches(store.link).turn_on(switch, "key_1", "it mails customers")
    said = await explained(store, job)
    assert said["gate"] == "kill_switch"
    assert "(it mails customers)" in said["detail"]


@pytest.mark.parametrize("scope", ["tenant", "agent:a", "key:k"])
async def test_a_job_that_a_limit_of_running_jobs_holds_names_it(store, scope):
    await worker(store)
    if scope != "key:k":
        await LimitBook(store.link).put(TENANT, scope, {"running": 1})
    key = {"concurrency": {"key": "k", "limit": 1}} if scope == "key:k" else {}
    await submitted(store, **key)
    claim, attempt = await claimed(store)
    jobs = [await submitted(store, **key) for _ in range(2)]
    for _ in range(2):
        said = [await explained(store, job) for job in jobs]
        assert [answer["gate"] for answer in said] == ["concurrency"] * 2
        assert [answer["place"] for answer in said] == [0, 1]
        assert said[0]["limit"] == {"scope": scope, "limit": 1, "running": 1}
        assert await store.tickets.claim(queue_names(["default"]), ["a@v"], most=9, lease=30, worker="w") == []
    await store.move(claim.job, "complete", attempt=attempt)
    assert (await explained(store, jobs[0]))["gate"] == "queued_behind"
