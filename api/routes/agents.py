"""The agents that workers have published."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Response

from agent_core.types import Json
from api import docs
from api.auth import Reader
from api.query import KnownQueryRoute
from api.responses import json_response, page
from jobs.agents import Published
from jobs.fleet import WorkerReport, workers

router = APIRouter(tags=["agents"], route_class=KnownQueryRoute)
AgentName = Annotated[str, Path(max_length=80)]


@router.get("/agents", response_model=None, responses=docs.AGENTS)
async def get_agents(caller: Reader) -> Response:
    """Every agent, in its current version."""
    names = await caller.services.agents.names()
    agents = await asyncio.gather(*(caller.services.agents.get(name, version) for name, version in names.items()))
    live = await workers(caller.services.link)
    return json_response(page([_summary(agent, live) for agent in agents]))


@router.get("/agents/{name}", response_model=None, responses=docs.AGENT)
async def get_agent(name: AgentName, caller: Reader) -> Response:
    """An agent in its current version, with its whole definition."""
    agent = await caller.services.agents.get(name)
    live = await workers(caller.services.link)
    return json_response({**_summary(agent, live), "definition": agent.definition})


@router.get("/agents/{name}/versions", response_model=None, responses=docs.VERSIONS)
async def get_versions(name: AgentName, caller: Reader) -> Response:
    """Every version of an agent, the newest first."""
    current = (await caller.services.agents.get(name)).version
    versions = await caller.services.agents.versions(name)
    data = [{"name": name, "version": v, "current": v == current} for v in reversed(versions)]
    return json_response(page(data))


def _summary(agent: Published, live: Sequence[WorkerReport]) -> Json:
    definition = agent.definition
    able = [worker for worker in live if _runs(worker, agent)]
    return {
        "name": agent.name,
        "version": agent.version,
        "description": definition.get("description"),
        "model": definition.get("model"),
        "pool": agent.pool,
        "tools": [tool["name"] for tool in definition.get("tools", [])],
        "budget": definition["budget"],
        "workers": len(able),
        "simulated": any(worker.simulated for worker in able),
    }


def _runs(worker: WorkerReport, agent: Published) -> bool:
    return agent.pool in worker.pools and f"{agent.name}@{agent.version}" in worker.versions and not worker.draining
