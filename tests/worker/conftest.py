"""An executor with a scripted model on a real Redis, and claims to give it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_core import Agent, Budget, tool
from agent_core.entries import ModelCompleted, ModelStarted, ToolRequested
from agent_core.ports import Model
from agent_core.testing import ScriptedModel
from agent_core.types import Json
from jobs import queue_keys
from jobs.files import FileStore
from jobs.moves import Attempt
from jobs.queue import Claim, queue_names
from jobs.records import Job, JobSpec, Service
from jobs.stats import Stats
from jobs.store import JobStore
from tests.memory.embedded_server import EmbeddedServer
from tests.servers import running
from worker.durable import DurableJournal, LiveText
from worker.executor import Attempted, Executor
from worker.reaper import Reaper

TENANT = "t"
WORKER = "w"
LEASE = 30


@tool(effect="read")
async def lookup(order_id: str) -> Json:
    """Looks an order up."""
    return {"order": order_id}


@tool(effect="write")
async def pay(amount: int) -> str:
    """Pays."""
    return f"paid {amount}"


@tool(effect="destructive")
async def erase() -> str:
    """Erases all."""
    return "erased"


@tool(effect="destructive")
async def tidy() -> str:
    """Erases what nobody wants."""
    return "tidied"


@tool(effect="read")
async def hang() -> str:
    """Never ends."""
    await asyncio.Event().wait()
    return ""


def make_agent(**fields: Any) -> Agent:
    given: Json = {
        "name": "x",
        "instructions": "Do it.",
        "model": "claude-sonnet-5-5",
        "tools": [lookup, pay, erase, tidy, hang],
        "auto_approve": ["tidy"],
        "max_tokens": 512,
    }
    return Agent(**{**given, **fields})


class Bench:
    """Submits, claims and runs jobs in this process."""

    def __init__(self, store: JobStore, folder: Path) -> None:
        self.store = store
        self.stats = Stats()
        self.folder = folder
        self.files = FileStore(store.link, f"file://{folder}/files")
        self.agent = make_agent()
        self.reaper = Reaper(store, self.stats, lease=0)

    def executor(self, model: Model, agent: Agent | None = None) -> Executor:
        agents = {f"{a.name}@{a.version}": a for a in [agent or self.agent]}
        models: dict[Service, Model] = {"standard": model, "batch": model}
        return Executor(self.store, self.files, models, agents.get, self.stats, self.folder / "work")

    async def submit(self, agent: Agent | None = None, budget: Budget | None = None, **fields: Any) -> str:
        spec = JobSpec(agent="x", agent_version=(agent or self.agent).version, **{"input": "go", **fields})
        return (await self.store.submit(TENANT, spec, budget or Budget())).job.id

    async def claim(self, agent: Agent | None = None) -> Claim:
        """The next job of the queues as an attempt."""
        version = f"x@{(agent or self.agent).version}"
        claims = await self.store.tickets.claim(queue_names(["default"]), [version], most=1, lease=LEASE, worker=WORKER)
        assert claims, "there is no ticket"
        return claims[0]

    async def run(self, model: Model | list[Any], agent: Agent | None = None) -> Job:
        """Claims the next job, runs the attempt to its end, and returns what became of the job."""
        made = ScriptedModel(model) if isinstance(model, list) else model
        claim = await self.claim(agent)
        await self.executor(made, agent).execute(Attempted(claim))
        return await self.job(claim.job_id)

    async def intent(self, claim: Claim, agent: Agent, name: str, given: Json) -> str:
        """Has an attempt ask for a tool call, and begin it; returns the call's id."""
        assert claim.job is not None
        live = LiveText(self.store, claim.job)
        journal = DurableJournal(self.store, claim.job, claim.token, self.stats, live, on_cancel=lambda: None)
        content = [{"type": "tool_use", "id": "toolu_0_0", "name": name, "input": given}]
        reply = ("c1", 1, agent.model, content, "tool_use", {"input_tokens": 1, "output_tokens": 1}, "p", 100, 5)
        await journal.record(ModelStarted("c1", 1, agent.model, 100, 10), ModelCompleted(*reply, "settled"))
        effect, price = agent.registry.effect(name), agent.registry.price(name)
        await journal.record(ToolRequested("toolu_0_0", 1, name, given, effect, price))
        return "toolu_0_0"

    def attempt(self, claim: Claim) -> Attempt:
        return Attempt(claim.token, claim.queue)

    async def job(self, job_id: str) -> Job:
        return await self.store.get(TENANT, job_id)

    async def end_lease(self, claim: Claim) -> None:
        """Makes the lease of an attempt end now."""
        await self.store.link.command("ZADD", queue_keys.wip(claim.queue), "XX", 0, claim.member)

    async def types(self, job_id: str) -> list[str]:
        return [line.type for line in await self.store.lines(job_id)]


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedServer]:
    """The embedded long-term memory, for all tests; each has users of its own."""
    with running(EmbeddedServer) as server:
        yield server


@pytest.fixture
def bench(store: JobStore, tmp_path: Path) -> Bench:
    return Bench(store, tmp_path)
