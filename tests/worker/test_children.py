"""A job that delegates: its children run on their own, it waits without a worker, and it answers for all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_core import Agent
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Budget, Json
from jobs import actions, keys
from jobs.agents import AgentCatalogue, Published
from jobs.explain import explain
from jobs.queue import queue_names
from jobs.records import Job, JobSpec
from tests.worker.conftest import LEASE, TENANT, WORKER, Bench, hang, make_agent
from worker.children import DEEPEST
from worker.executor import Attempted
from worker.reaper import Reaper

LEAD = make_agent(name="lead", tools=[hang], auto_approve=[], agents=["clerk", "lead"])
CLERK = make_agent(name="clerk", tools=[], auto_approve=[], budget=Budget(usd="0.5"))
TWO = [("delegate", {"agent": "clerk", "task": "one"}), ("delegate", {"agent": "clerk", "task": "two", "usd": "0.25"})]


class Office:
    """A lead and a clerk, whose jobs are run one attempt at a time."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.store = bench, bench.store
        self.agents = {f"{agent.name}@{agent.version}": agent for agent in (LEAD, CLERK)}

    async def open(self) -> Office:
        known = [Published(agent.name, agent.version, agent.definition()) for agent in (LEAD, CLERK)]
        await AgentCatalogue(self.store.link).publish(known)
        return self

    async def submit(self, agent: Agent = LEAD, budget: Budget | None = None, **fields: Any) -> str:
        spec = JobSpec(agent=agent.name, agent_version=agent.version, input="do all of it", **fields)
        return (await self.store.submit(TENANT, spec, budget or agent.budget)).job.id

    async def run(self, *script: Json) -> Job:
        """Runs an attempt of the next job that has a ticket."""
        bench = self.bench
        claims = await self.store.tickets.claim(
            queue_names(["default"]), list(self.agents), most=1, lease=LEASE, worker=WORKER
        )
        assert claims, "there is no ticket"
        executor = bench.executor(ScriptedModel(script))
        executor._agents = self.agents.get
        await executor.execute(Attempted(claims[0]))
        return await bench.job(claims[0].job_id)

    async def tickets(self) -> int:
        return sum((await self.store.tickets.depths()).values())


@pytest.fixture
async def office(bench: Bench) -> Office:
    return await Office(bench).open()


async def test_the_parent_waits_without_a_worker_and_goes_on_with_what_came_of_it(office: Office) -> None:
    parent_id = await office.submit()
    parent = await office.run(calls(*TWO))
    assert (parent.status, await office.tickets()) == ("queued", 2)
    first = await office.run(says("found one"))
    assert (first.spec.parent_id, first.spec.input, first.budget.usd) == (parent_id, "one", "0.5")
    assert await office.tickets() == 1, "the parent waits for both"
    told = await explain(office.store, office.store.link, await office.bench.job(parent_id))
    assert (told["gate"], len(told["children"])) == ("children", 1)
    second = await office.run(says("found two"))
    assert second.budget.usd == "0.25"
    assert await office.tickets() == 1, "the last child's end gives the parent a ticket at once"
    done = await office.run(calls(*TWO), says("both found"))
    assert (done.id, done.status, done.output) == (parent_id, "completed", "both found")
    lines = await office.store.lines(parent_id)
    results = [line.data["content"] for line in lines if line.type == "tool.completed"]
    assert ["found one" in results[0], "found two" in results[1]] == [True, True]
    told_of = [(line.type, line.data["job_id"], line.attempt) for line in lines if line.type.startswith("child.")]
    ids = [first.id, second.id]
    assert told_of == [(type_, child, 1) for type_ in ("child.started", "child.completed") for child in ids]
    assert await office.store.children(parent_id) == []


async def test_a_call_that_is_made_again_starts_no_second_child(office: Office) -> None:
    parent_id = await office.submit()
    await office.run(calls(TWO[0]))
    children = await office.store.children(parent_id)
    await office.store.undefer(parent_id)
    await office.store.release(parent_id)
    claims = await office.store.tickets.claim(
        queue_names(["default"]), [f"lead@{LEAD.version}"], most=1, lease=LEASE, worker=WORKER
    )
    assert [claim.job_id for claim in claims] == [parent_id]
    executor = office.bench.executor(ScriptedModel([calls(TWO[0])]))
    executor._agents = office.agents.get
    await executor.execute(Attempted(claims[0]))
    assert await office.store.children(parent_id) == children
    assert (await office.bench.types(parent_id)).count("child.started") == 1


async def test_the_failure_of_a_child_is_a_result_that_says_why(office: Office) -> None:
    parent_id = await office.submit()
    await office.run(calls(TWO[0]))
    await office.run(says("I will not", stop_reason="refusal"))
    await office.run(calls(TWO[0]), says("then not"))
    line = next(line for line in await office.store.lines(parent_id) if line.type == "tool.completed")
    assert line.data["is_error"]
    assert "child_failed" in line.data["content"]
    assert "the model declined" in line.data["content"]
    assert "I will not" in line.data["content"]


async def test_the_end_of_the_parent_ends_its_children(office: Office) -> None:
    parent_id = await office.submit()
    await office.run(calls(*TWO))
    children = await office.store.children(parent_id)
    await actions.cancel(office.store, TENANT, parent_id)
    found = [await office.bench.job(child) for child in children]
    assert [child.status for child in found] == ["cancelled", "cancelled"]
    assert await office.store.link.command("EXISTS", keys.children(parent_id)) == 0


async def test_a_limit_that_ends_the_parent_ends_its_children(office: Office) -> None:
    parent_id = await office.submit(budget=Budget(seconds=1))
    parent = await office.run(calls(TWO[0], ("hang", {})))
    assert (parent.status, parent.stop_reason) == ("failed", "timeout")
    (started,) = [line for line in await office.store.lines(parent_id) if line.type == "child.started"]
    await Reaper(office.store, office.bench.stats, LEASE).sweep()
    assert (await office.bench.job(started.data["job_id"])).status == "cancelled"


async def test_what_a_child_spends_is_spent_by_its_parent(office: Office) -> None:
    parent_id = await office.submit()
    await office.run(calls(TWO[0]))
    before = await office.bench.job(parent_id)
    child = await office.run(says("found"))
    after = await office.bench.job(parent_id)
    assert after.counters["spent"] - before.counters["spent"] == child.counters["cost"] > 0
    assert after.counters["cost"] == before.counters["cost"]


async def test_a_child_has_the_files_of_its_parent(office: Office) -> None:
    record = await office.bench.files.save(TENANT, "notes.txt", b"all that is known")
    await office.submit(files=[record.id])
    await office.run(calls(TWO[0]))
    child = await office.run(says("found it"))
    assert child.spec.files == [record.id]
    lines = await office.store.lines(child.id)
    assert child.status == "completed", lines


async def test_delegation_has_a_bottom(office: Office) -> None:
    await office.submit(ancestors=[f"job_{n}" for n in range(DEEPEST)])
    done = await office.run(calls(("delegate", {"agent": "lead", "task": "again"})), says("done here"))
    line = next(line for line in await office.store.lines(done.id) if line.type == "tool.completed")
    assert "too_deep" in line.data["content"]


@pytest.mark.parametrize(
    "given", [{"agent": "nobody"}, {"agent": "clerk", "usd": "-1"}, {"agent": "clerk", "usd": "x"}]
)
async def test_what_cannot_be_started_is_an_error_the_model_can_act_on(office: Office, given: Json) -> None:
    await office.submit()
    done = await office.run(calls(("delegate", {"task": "t", **given})), says("ok"))
    line = next(line for line in await office.store.lines(done.id) if line.type == "tool.completed")
    assert line.data["is_error"]
    assert "expected" in line.data["content"]
    assert await office.store.children(done.id) == []


async def test_children_of_a_dead_parent_are_ended_although_its_worker_died_over_it(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object) -> None:
        raise asyncio.CancelledError

    parent_id = await office.submit()
    await office.run(calls(("delegate", {"agent": "lead", "task": "one"}), TWO[1]))
    middle, second = await office.store.children(parent_id)
    running = await office.run(calls(TWO[0]))
    assert running.id in (middle, second)
    (grandchild,) = await office.store.children(running.id)
    monkeypatch.setattr("jobs.actions.cancel_children", dies)
    with pytest.raises(asyncio.CancelledError):
        await actions.cancel(office.store, TENANT, parent_id)
    monkeypatch.undo()
    assert (await office.bench.job(parent_id)).status == "cancelled"
    open_ = [middle, second, grandchild]
    assert {(await office.bench.job(child)).status for child in open_} == {"queued"}
    broken = next(child for child in (middle, second) if child != running.id)
    await office.store.link.command("HDEL", keys.job(broken), "spec")
    await office.bench.reaper.sweep()
    assert [(await office.bench.job(child)).status for child in (running.id, grandchild)] == ["cancelled"] * 2
    assert (await office.store.tickets.overdue()).orphans == [parent_id], "a record that cannot be read never ends"
