"""A job parked because a crash interrupted a write, and what an attempt makes of what a person decides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_core.entries import ModelCompleted, ToolRequested
from agent_core.ports import Draft, Request
from agent_core.results import as_data
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Json
from jobs import actions
from jobs.decisions import CallDecision, abandon, decide
from jobs.records import Job
from jobs.stats import Stats
from tests.worker.conftest import TENANT, Bench
from worker.durable import DurableJournal, LiveText

SCRIPT = [calls(("pay", {"amount": 3}), ("pay", {"amount": 4})), says("ok")]


class Parked:
    """A job whose worker died between the intents and the results of two payments."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.id = ""
        self.model = ScriptedModel(SCRIPT)

    async def park(self) -> list[Json]:
        """Parks the job; the calls that wait."""
        self.id = await self.bench.submit()
        await self.interrupt()
        job = await self.bench.run(self.model)
        assert (job.status, job.stop_reason) == ("requires_action", "needs_reconcile")
        waiting: list[Json] = (await self.bench.store.lines(self.id))[-1].data["calls"]
        return waiting

    async def interrupt(self) -> None:
        bench = self.bench
        claim = await bench.claim()
        assert claim.job is not None
        draft = Draft()
        await self.model.complete(Request("m", "", [{"role": "user", "content": "go"}], [], 1), draft)
        journal = DurableJournal(
            bench.store, claim.job, claim.token, Stats(), LiveText(bench.store, claim.job), on_cancel=lambda: None
        )
        await journal.record(
            ModelCompleted("c", 1, "m", draft.content, "tool_use", None, "p", reserved=0, settled=0, reason="settled"),
            *(ToolRequested(call["id"], 1, "pay", call["input"], "write") for call in draft.content),
        )
        await bench.end_lease(claim)
        await bench.reaper.sweep()

    async def decide(self, *decisions: CallDecision) -> None:
        await decide(self.bench.store, TENANT, self.id, decisions, "key_1")

    async def go_on(self) -> Job:
        return await self.bench.run(self.model)

    async def lines(self, type_: str) -> list[Json]:
        return [line.data for line in await self.bench.store.lines(self.id) if line.type == type_]

    def results(self) -> list[Any]:
        """What the model saw of the calls in its last request."""
        return [block["content"] for block in self.model.requests[-1].messages[-1]["content"]]


@pytest.fixture
def parked(bench: Bench) -> Parked:
    return Parked(bench)


async def test_a_parked_job_names_its_calls_and_their_idempotency_keys(parked: Parked, bench: Bench):
    waiting = await parked.park()
    assert [(call["tool"], call["input"]) for call in waiting] == [("pay", {"amount": 3}), ("pay", {"amount": 4})]
    assert [call["key"] for call in waiting] == [f"{parked.id}.{call['call_id']}" for call in waiting]
    assert await bench.store.tickets.running() == 0
    assert sum((await bench.store.tickets.depths()).values()) == 0


async def test_what_happened_is_told_to_the_model_and_what_did_not_is_run(parked: Parked):
    first, second = [call["call_id"] for call in await parked.park()]
    await parked.decide(CallDecision(first, "happened", {"receipt": 7}), CallDecision(second, "not_happened"))
    job = await parked.go_on()
    assert (job.status, job.output, job.counters["tool_calls"]) == ("completed", "ok", 2)
    assert parked.results() == [as_data("pay", '{"receipt": 7}'), as_data("pay", "paid 4")]
    said = await parked.lines("tool.reconciled")
    assert [(line["call_id"], line["decision"], line["by"]) for line in said] == [
        (first, "happened", "person"),
        (second, "not_happened", "person"),
    ]
    assert [line["call_id"] for line in await parked.lines("tool.requested")] == [first, second, second]


async def test_a_call_that_dies_again_after_a_person_let_it_run_waits_again(parked: Parked, bench: Bench):
    first, second = [call["call_id"] for call in await parked.park()]
    await parked.decide(CallDecision(first, "happened", "paid"), CallDecision(second, "not_happened"))
    claim = await bench.claim()
    lines: list[tuple[str, Json]] = [
        ("tool.reconciled", {"call_id": first, "step": 1, "name": "pay", "decision": "happened", "by": "person"}),
        ("tool.completed", {"call_id": first, "step": 1, "name": "pay", "content": "paid", "is_error": False}),
        ("tool.reconciled", {"call_id": second, "step": 1, "name": "pay", "decision": "not_happened", "by": "person"}),
        ("tool.requested", {"call_id": second, "step": 1, "name": "pay", "input": {"amount": 4}, "effect": "write"}),
    ]
    await bench.store.record(parked.id, claim.token, 1, {}, lines)
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    job = await parked.go_on()
    assert (job.status, job.stop_reason) == ("requires_action", "needs_reconcile")
    (waiting,) = (await bench.store.lines(parked.id))[-1].data["calls"]
    assert waiting["call_id"] == second


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_an_attempt_that_dies_while_it_takes_over_is_followed_by_one_that_takes_the_rest(
    parked: Parked, bench: Bench, taken: int
):
    first, second = [call["call_id"] for call in await parked.park()]
    await parked.decide(CallDecision(first, "happened", "a"), CallDecision(second, "happened", "b"))
    claim = await bench.claim()
    for number, (call_id, content) in enumerate([(first, "a"), (second, "b")][:taken], 1):
        about = {"call_id": call_id, "step": 1, "name": "pay"}
        entries: list[tuple[str, Json]] = [
            ("tool.reconciled", {**about, "decision": "happened", "by": "person"}),
            ("tool.completed", {**about, "content": content, "is_error": False}),
        ]
        await bench.store.record(parked.id, claim.token, number, {}, entries)
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    assert (await parked.go_on()).status == "completed"
    assert parked.results() == [as_data("pay", "a"), as_data("pay", "b")]
    assert len(await parked.lines("tool.reconciled")) == len(await parked.lines("tool.completed")) == 2


async def test_decisions_outlive_a_cancel_and_a_retry(parked: Parked, bench: Bench):
    waiting = await parked.park()
    await parked.decide(*(CallDecision(call["call_id"], "happened", "paid") for call in waiting))
    await actions.cancel(bench.store, TENANT, parked.id)
    await actions.retry(bench.store, TENANT, parked.id)
    assert (await parked.go_on()).status == "completed"
    assert parked.results() == [as_data("pay", "paid")] * 2


async def test_a_retry_of_a_stopped_job_asks_again(parked: Parked, bench: Bench):
    await parked.park()
    await abandon(bench.store, TENANT, parked.id, "enough", "key_1")
    await actions.retry(bench.store, TENANT, parked.id)
    job = await parked.go_on()
    assert (job.status, job.stop_reason) == ("requires_action", "needs_reconcile")
    assert json.loads(json.dumps(job.to_json()))["error"] is None
