"""What a job does at a limit, and what priced tools cost: runs with a scripted model on a real Redis."""

from __future__ import annotations

from typing import Any

from agent_core import Budget, tool
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Json
from jobs import actions, keys
from jobs.audit import audit
from jobs.budgets import Budgets, ScopeBudget
from jobs.decisions import CallDecision, decide
from jobs.explain import explain
from jobs.journal import ledger_rows
from jobs.records import Job
from tests.worker.conftest import TENANT, Bench, make_agent

PRICE = "0.25"


@tool(effect="read", price_usd=PRICE)
async def search(query: str) -> str:
    """Searches for money."""
    return f"found {query}"


@tool(effect="write", price_usd=PRICE)
async def order(item: str) -> str:
    """Orders something."""
    return f"ordered {item}"


AGENT = make_agent(tools=[search, order], auto_approve=[])
SEARCH = calls(("search", {"query": "a"}), ("search", {"query": "b"}))


async def rows(bench: Bench, job_id: str) -> list[Json]:
    return ledger_rows(job_id, await bench.store.lines(job_id))


async def reached(bench: Bench, job_id: str) -> list[Json]:
    return [line.data for line in await bench.store.lines(job_id) if line.type == "budget.reached"]


async def exact(bench: Bench) -> bool:
    found = await audit(bench.store.link, TENANT)
    assert not found.differences
    return found.jobs > 0


async def paused(bench: Bench, scope: str, period: Any, **spec: Any) -> Job:
    """A job that a budget holds."""
    await Budgets(bench.store).put(TENANT, ScopeBudget(scope, period, 10, None, "pause"))
    await bench.submit(**spec)
    job = await bench.run([])
    assert (job.status, job.stop_reason) == ("paused", "budget_exceeded")
    return job


# ---- tools with a price


async def test_a_priced_tool_is_a_row_of_the_ledger_for_each_call(bench: Bench):
    job_id = await bench.submit(AGENT, Budget(usd="2"))
    job = await bench.run([SEARCH, says("done")], AGENT)
    assert job.status == "completed"
    tools = [row for row in await rows(bench, job_id) if row["kind"] == "tool"]
    assert [(row["model"], row["reserved_usd"], row["settled_usd"], row["reason"]) for row in tools] == [
        ("search", PRICE, PRICE, "settled")
    ] * 2
    assert job.counters["cost"] == 500_000 + 2 * 400
    assert await exact(bench)


async def test_a_tool_that_the_budget_has_no_room_for_is_not_run(bench: Bench):
    job_id = await bench.submit(AGENT, Budget(usd="0.30"))
    assert (await bench.run([SEARCH], AGENT)).status == "queued"  # until the other call is settled
    await bench.store.undefer(job_id)
    await bench.store.release(job_id)
    job = await bench.run([], AGENT)
    assert (job.status, job.stop_reason) == ("failed", "budget_exceeded")
    done = [line for line in await bench.store.lines(job_id) if line.type == "tool.completed"]
    assert len(done) == 1
    assert await exact(bench)


async def test_a_tool_waits_while_a_limit_is_full_of_reservations_alone(bench: Bench):
    await Budgets(bench.store).put(TENANT, ScopeBudget("tenant", "total", 300_000, None))
    await bench.store.link.command("HSET", keys.meter(TENANT, "tenant", "total"), "reserved", 200_000)
    await bench.submit(AGENT)
    job = await bench.run([SEARCH, says("done")], AGENT)
    assert job.status == "queued"


async def test_an_interrupted_call_keeps_its_reservation_until_its_result(bench: Bench):
    job_id = await bench.submit(AGENT, Budget(usd="2"))
    claim = await bench.claim(AGENT)
    attempt = await bench.intent(claim, AGENT, "order", {"item": "a"})
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    assert (await bench.job(job_id)).counters["reserved"] == 250_000
    parked = await bench.run([], AGENT)
    assert parked.status == "requires_action"
    await decide(bench.store, TENANT, job_id, [CallDecision(attempt, "happened", "ordered a")], by="me")
    job = await bench.run([{}, says("done")], AGENT)
    assert (job.status, job.counters["reserved"]) == ("completed", 0)
    assert [row["settled_usd"] for row in await rows(bench, job_id) if row["kind"] == "tool"] == [PRICE]
    assert await exact(bench)


async def test_a_call_that_nobody_settles_is_charged_when_its_job_ends(bench: Bench):
    job_id = await bench.submit(AGENT, Budget(usd="2"))
    claim = await bench.claim(AGENT)
    await bench.intent(claim, AGENT, "order", {"item": "a"})
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    await actions.cancel(bench.store, TENANT, job_id)
    assert (await bench.job(job_id)).counters["reserved"] == 0
    (row,) = [row for row in await rows(bench, job_id) if row["kind"] == "tool"]
    assert (row["settled_usd"], row["reason"]) == (PRICE, "worst_case")
    assert await exact(bench)


async def test_a_call_that_did_not_happen_is_not_charged(bench: Bench):
    job_id = await bench.submit(AGENT, Budget(usd="2"))
    claim = await bench.claim(AGENT)
    call_id = await bench.intent(claim, AGENT, "order", {"item": "a"})
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    await bench.run([], AGENT)
    await decide(bench.store, TENANT, job_id, [CallDecision(call_id, "not_happened")], by="me")
    job = await bench.run([{}, says("done")], AGENT)
    assert job.status == "completed"
    tools = [row for row in await rows(bench, job_id) if row["kind"] == "tool"]
    assert [row["settled_usd"] for row in tools] == [PRICE]  # released first, then made and paid
    assert await exact(bench)


# ---- at a limit


async def test_a_refusal_is_an_event_that_names_the_limit(bench: Bench):
    job_id = await bench.submit(budget=Budget(usd="0.000001"))
    job = await bench.run([])
    assert (job.status, job.stop_reason) == ("failed", "budget_exceeded")
    assert await reached(bench, job_id) == [
        {"scope": "job", "period": "total", "at_limit": "stop", "refused": True, "left": 1, "limit": 1}
    ]
    assert bench.stats.take()["budget_refusals_total|job"] == 1


async def test_a_paused_job_says_what_holds_it_and_goes_on_when_the_limit_is_raised(bench: Bench):
    job = await paused(bench, "user:u", "total", user="u")
    told = await explain(bench.store, bench.store.link, job)
    assert (told["gate"], told["budget"]) == ("budget", "user:u|total")
    await Budgets(bench.store).put(TENANT, ScopeBudget("user:u", "total", 1_000_000, None, "pause"))
    assert (await bench.run([says("done")])).status == "completed"
    assert await bench.store.link.command("ZCARD", keys.HELD) == 0


async def test_it_goes_on_by_itself_when_the_window_is_over(bench: Bench):
    job = await paused(bench, "user:*", "day", user="u")
    assert await bench.store.link.command("ZSCORE", keys.DUE, job.id) % 86_400_000 == 0
    await bench.reaper.sweep()
    assert (await bench.job(job.id)).status == "paused"
    await bench.store.link.command("ZADD", keys.DUE, 1, job.id)  # midnight
    await bench.reaper.sweep()
    assert (await bench.job(job.id)).status == "queued"


async def test_a_jobs_own_limit_is_raised_as_it_is_resumed(bench: Bench):
    job_id = await bench.submit(budget=Budget(usd="0.000001", at_limit="pause"))
    assert (await bench.run([])).status == "paused"
    await actions.resume(bench.store, TENANT, job_id, {"usd": "1"})
    assert (await bench.run([says("done")])).status == "completed"
    assert await exact(bench)


async def test_a_limit_that_only_warns_lets_the_job_go_on(bench: Bench):
    job_id = await bench.submit(budget=Budget(usd="0.000100", at_limit="warn"))
    assert (await bench.run([says("done")])).status == "completed"
    assert [about["percent"] for about in await reached(bench, job_id)] == [80, 100]


async def test_the_last_call_is_made_to_fit_and_the_agent_is_told(bench: Bench):
    looks = {**calls(("lookup", {"order_id": "1"})), "usage": {"input_tokens": 100, "output_tokens": 500}}
    model = ScriptedModel([looks, says("as far as I know")])
    await bench.submit(budget=Budget(usd="0.015"))
    job = await bench.run(model)
    assert (job.status, job.output) == ("completed", "as far as I know")
    last = model.requests[-1]
    assert last.extra["tool_choice"] == {"type": "none"}
    assert last.max_tokens < 512
    assert "Conclude now" in str(last.messages[-1])
    assert job.counters["cost"] <= 15_000
