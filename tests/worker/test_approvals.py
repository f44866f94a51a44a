"""An attempt parks a job with what it asks, the next goes on with what was decided; a duty decides what nobody did."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_core import Agent, ask
from agent_core.entries import ApprovalDecided
from agent_core.questions import ask_human
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Json
from jobs import actions, keys
from jobs.approvals import Approval
from jobs.records import Job
from jobs.rulings import Ruling, decide
from tests.worker.conftest import TENANT, Bench, erase, make_agent, pay
from worker.approvals import ApprovalWatch

ASKING = make_agent(
    tools=[pay, erase, ask_human],
    auto_approve=[],
    approvals={"pay": ask(when=lambda input: input["amount"] > 5, expires_in=60, requester_may_decide=False)},
)


async def parked(bench: Bench, *asked: tuple[str, Json], agent: Agent = ASKING) -> tuple[Job, ScriptedModel]:
    model = ScriptedModel([calls(*asked), says("ok")])
    await bench.submit(agent, submitted_by="key_1")
    job = await bench.run(model, agent)
    assert (job.status, job.stop_reason) == ("requires_action", "approval")
    return job, model


async def approvals(bench: Bench, job: Job) -> dict[str, Approval]:
    """What the job asks, by the call's id."""
    found = await bench.store.approvals.get_many(await bench.store.approvals.of_job(job.id))
    return {approval.request.call_id: approval for approval in found if approval}


def results(model: ScriptedModel) -> list[Any]:
    """What the model saw of the calls in its last request."""
    return [block["content"] for block in model.requests[-1].messages[-1]["content"]]


async def test_it_asks_by_the_policy_and_runs_what_needs_nobody(bench: Bench):
    job, _ = await parked(bench, ("pay", {"amount": 3}), ("pay", {"amount": 6}), ("ask_human", {"question": "q"}))
    found = await approvals(bench, job)
    assert {(one.request.name, one.request.kind) for one in found.values()} == {
        ("pay", "tool"),
        ("ask_human", "question"),
    }
    payment = found["toolu_0_1"].to_json()
    assert (payment["input"], payment["effect"], payment["requester"]) == ({"amount": 6}, "write", "key_1")
    assert (payment["requester_may_decide"], payment["expires_at"] is None) == (False, False)
    (waiting,) = [line.data["calls"] for line in await bench.store.lines(job.id) if line.type == "job.requires_action"]
    assert {call["approval_id"] for call in waiting} == {one.id for one in found.values()}
    assert job.counters["tool_calls"] == 1


async def test_it_goes_on_with_what_was_decided(bench: Bench):
    asked: list[tuple[str, Json]] = [
        ("pay", {"amount": 6}),
        ("pay", {"amount": 7}),
        ("ask_human", {"question": "q"}),
        ("erase", {}),
    ]
    job, model = await parked(bench, *asked)
    found = await approvals(bench, job)
    rulings = [
        Ruling("approve", input={"amount": 5}),
        Ruling("deny", "too much"),
        Ruling("approve", answer="blue"),
        Ruling("approve"),
    ]
    for number, ruling in enumerate(rulings):
        await decide(bench.store, TENANT, found[f"toolu_0_{number}"].id, ruling, "key_2")
    job = await bench.run(model, ASKING)
    assert (job.status, job.output) == ("completed", "ok")
    edited, denied, answer, erased = results(model)
    assert "paid 5" in edited
    assert json.loads(denied)["error"] == {
        "code": "denied", "message": "this call was not allowed: too much", "retryable": False
    }  # fmt: skip
    assert ("blue" in answer, "erased" in erased) == (True, True)
    intents = [line.data for line in await bench.store.lines(job.id) if line.type == "tool.requested"]
    assert {intent["call_id"]: intent["input"] for intent in intents} == {
        "toolu_0_0": {"amount": 5}, "toolu_0_3": {}
    }  # fmt: skip


async def test_a_retry_of_a_cancelled_job_asks_again(bench: Bench):
    job, model = await parked(bench, ("pay", {"amount": 6}), ("erase", {}))
    found = await approvals(bench, job)
    await decide(bench.store, TENANT, found["toolu_0_0"].id, Ruling("approve"), "key_2")
    await actions.cancel(bench.store, TENANT, job.id)
    await actions.retry(bench.store, TENANT, job.id)
    job = await bench.run(model, ASKING)
    assert (job.status, job.stop_reason) == ("requires_action", "approval")
    statuses = sorted(
        one.status for one in await bench.store.approvals.get_many(await bench.store.approvals.of_job(job.id)) if one
    )
    assert statuses == ["approved", "pending", "pending", "withdrawn"]


async def test_a_fork_from_a_step_that_waits_asks_for_itself(bench: Bench):
    job, model = await parked(bench, ("erase", {}))
    forked = await actions.fork(bench.store, TENANT, job.id, step=1, changes={"submitted_by": "key_7"})
    assert forked.job.spec.submitted_by == "key_7"
    fork = await bench.run(model, ASKING)
    (asked,) = (await approvals(bench, fork)).values()
    assert (asked.job_id, asked.request.requester) == (forked.job.id, "key_7")
    await decide(bench.store, TENANT, asked.id, Ruling("approve"), "key_2")
    assert (await bench.run(model, ASKING)).status == "completed"
    assert (await bench.job(job.id)).status == "requires_action"


async def test_the_duty_takes_the_default_decision_by_the_clock_of_redis(bench: Bench):
    job, model = await parked(bench, ("pay", {"amount": 6}))
    (asked,) = (await approvals(bench, job)).values()
    watch = ApprovalWatch(bench.store)
    await watch.sweep()
    assert (await bench.job(job.id)).status == "requires_action"
    await bench.store.link.command("HSET", keys.approval(asked.id), "expires_ms", 1)
    await bench.store.link.command("ZADD", keys.PENDING_APPROVALS, 1, asked.id)
    await watch.sweep()
    assert (await bench.run(model, ASKING)).status == "completed"
    assert "nobody decided in time" in results(model)[0]


async def test_the_duty_queues_a_job_whose_last_decision_nobody_followed_up(bench: Bench):
    job, model = await parked(bench, ("erase", {}))
    (asked,) = (await approvals(bench, job)).values()
    ruling = ApprovalDecided(asked.id, "toolu_0_0", "erase", "approve", "key_2")
    await bench.store.approvals.rule(asked, "approved", ruling)
    assert (await bench.job(job.id)).status == "requires_action"
    watch = ApprovalWatch(bench.store)
    await watch.sweep(left_ms=60_000)
    assert (await bench.job(job.id)).status == "requires_action"
    await watch.sweep(left_ms=0)
    await watch.sweep(left_ms=0)
    assert (await bench.run(model, ASKING)).status == "completed"
    assert (await bench.types(job.id)).count("job.resumed") == 1


@pytest.mark.parametrize("dies", [0, 1])
async def test_an_attempt_that_dies_with_an_approved_call_is_followed_by_one_that_makes_it_once(
    bench: Bench, dies: int
):
    """Before its intent, the next one makes it; after, a person is asked what became of it, and not whether it may."""
    job, model = await parked(bench, ("erase", {}))
    (asked,) = (await approvals(bench, job)).values()
    await decide(bench.store, TENANT, asked.id, Ruling("approve"), "key_2")
    claim = await bench.claim(ASKING)
    if dies:
        intent = {"call_id": "toolu_0_0", "step": 1, "name": "erase", "input": {}, "effect": "destructive"}
        await bench.store.record(job.id, claim.token, 1, {}, [("tool.requested", intent)])
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    job = await bench.run(model, ASKING)
    assert (job.status, job.stop_reason) == (
        ("requires_action", "needs_reconcile") if dies else ("completed", "end_turn")
    )
    assert len(await approvals(bench, job)) == 1
