"""A bench whose jobs have long-term memory: an executor, the embedded memory, and users that no other test has."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from pydantic import SecretStr

from agent_core import Agent
from agent_core.ports import Model
from agent_core.testing import ScriptedModel
from agent_core.types import Json
from jobs.agents import AgentCatalogue
from jobs.journal import Line
from jobs.queue import Claim, queue_names
from jobs.records import Job, JobSpec, Service
from memory.longterm import LongTermMemory
from memory.scope import Scope
from memory.setup import LazyMemory
from tests.memory.embedded_server import EmbeddedServer
from tests.worker.conftest import LEASE, TENANT, WORKER, Bench, make_agent
from worker.executor import Attempted, Executor
from worker.extraction import extraction_agent
from worker.job_memory import EXTRACTION
from worker.loader import published, with_memory_tools
from worker.settings import Settings

NOWHERE = "http://127.0.0.1:9"


def remembering_agent(**fields: Any) -> Agent:
    return with_memory_tools(make_agent(**{"tools": [], "auto_approve": [], "memory": True, **fields}))


class Remembering:
    """Jobs of `user` over one memory."""

    def __init__(self, bench: Bench, lazy: LazyMemory, agent: Agent) -> None:
        self.bench = bench
        self.lazy = lazy
        self.agent = agent
        self.user = f"ada-{uuid.uuid4().hex}"
        self.scope = Scope(TENANT, self.user)

    async def memory(self) -> LongTermMemory:
        return await self.lazy.get()

    async def submit(self, text: Any = "go", agent: Agent | None = None, **fields: Any) -> str:
        made = agent or self.agent
        await AgentCatalogue(self.bench.store.link).publish([published(made)])
        spec = JobSpec(agent=made.name, agent_version=made.version, **{"input": text, "user": self.user, **fields})
        return (await self.bench.store.submit(TENANT, spec, made.budget)).job.id

    async def claim(self, agent: Agent | None = None) -> Claim:
        """The next job of the queues, an extraction too."""
        versions = [f"{each.name}@{each.version}" for each in self.agents(agent)]
        found = await self.bench.store.tickets.claim(
            queue_names(["default"]), versions, most=1, lease=LEASE, worker=WORKER
        )
        assert found, "there is no ticket"
        return found[0]

    def begin(self, claim: Claim, model: Model | list[Any], agent: Agent | None = None) -> Attempted:
        """Starts an attempt."""
        made = ScriptedModel(model) if isinstance(model, list) else model
        models: dict[Service, Model] = {"standard": made, "batch": made}
        known = {f"{each.name}@{each.version}": each for each in self.agents(agent)}
        executor = Executor(
            self.bench.store,
            self.bench.files,
            models,
            known.get,
            self.bench.stats,
            self.bench.folder / "work",
            memory=self.lazy,
        )
        attempted = Attempted(claim)
        attempted.task = asyncio.create_task(executor.execute(attempted))
        return attempted

    async def run(self, model: Model | list[Any], agent: Agent | None = None) -> Job:
        """Takes the next job to the end of an attempt."""
        claim = await self.claim(agent)
        attempted = self.begin(claim, model, agent)
        assert attempted.task is not None
        await attempted.task
        return await self.bench.store.get(None, claim.job_id)

    def agents(self, agent: Agent | None) -> list[Agent]:
        made = agent or self.agent
        return [made, extraction_agent(made.models.get("summariser", made.model))]

    async def learnt_by(self, job_id: str) -> str:
        """The id of a job's extraction."""
        found = await self.extraction(job_id)
        assert found is not None
        return found

    async def extraction(self, job_id: str) -> str | None:
        """The id of the extraction that the end of a job names."""
        line = (await self.bench.store.lines(job_id))[-1]
        return line.data.get("extraction")

    async def lines(self, job_id: str, type_: str) -> list[Line]:
        return [line for line in await self.bench.store.lines(job_id) if line.type == type_]

    async def texts(self) -> list[str]:
        """What is remembered of the user at present."""
        return [each.text for each in await (await self.memory()).browse(self.scope)]


def memory_at(server: EmbeddedServer) -> LazyMemory:
    """The embedded memory, as the settings of a worker name it."""
    return memory_by(qdrant_url=server.url, qdrant_api_key=SecretStr(server.api_key))


def memory_by(**settings: Any) -> LazyMemory:
    """Memory as the settings of a worker have it."""
    return LazyMemory(Settings(**settings))


def add(text: str, quote: str, **more: Any) -> Json:
    return {"op": "add", "text": text, "quote": quote, **more}


__all__ = ["EXTRACTION", "NOWHERE", "Remembering", "add", "memory_at", "memory_by", "remembering_agent"]
