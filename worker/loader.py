"""Finds the agents that a worker runs: those its modules define, and older published versions whose tools they have."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from agent_core.agent import Agent
from agent_core.approvals import rebuilt as rebuilt_rules
from agent_core.delegation import NAME as DELEGATE
from agent_core.errors import DefinitionError
from agent_core.guardrails import rebuilt as rebuilt_checks
from agent_core.mcp import McpServer
from agent_core.memory import UserMemory
from agent_core.patterns import rebuilt as rebuilt_pattern
from agent_core.schedule import Schedule
from agent_core.tools import Tool
from agent_core.types import Budget, Json
from jobs.agents import Published
from jobs.errors import InvalidError
from jobs.schedules import ScheduleSpec
from worker.errors import StartError
from worker.job_memory import EXTRACTION

Remote = Callable[[Json], Tool]
NOT_DECLARED: Json = {"webhook": None, "output_schema": None}
"""What only a schedule that was made over the API can have."""


class Loaded(NamedTuple):
    """What modules define: agents by name, and what is declared to run by the clock."""

    agents: dict[str, Agent]
    schedules: list[ScheduleSpec]


def load_agents(sources: Sequence[str]) -> dict[str, Agent]:
    """The Agent objects of modules or .py files, by name. Raises StartError."""
    return load(sources).agents


def load(sources: Sequence[str]) -> Loaded:
    """The Agent and Schedule objects of modules or .py files. Raises StartError."""
    agents: dict[str, Agent] = {}
    schedules: dict[str, Schedule] = {}
    for source in sources:
        values = list(vars(_import(source)).values())
        found = [value for value in values if isinstance(value, Agent)]
        for schedule in (value for value in values if isinstance(value, Schedule)):
            if schedules.setdefault(schedule.name, schedule) != schedule:
                raise StartError(f"NIGHTSHIFT_AGENTS: two different schedules are named {schedule.name!r}; rename one")
        if not found:
            raise StartError(f"NIGHTSHIFT_AGENTS: {source} defines no agent; it needs a module-level Agent(...)")
        for agent in found:
            if agent.name == EXTRACTION:
                raise StartError(f"NIGHTSHIFT_AGENTS: {source}: {EXTRACTION!r} is the platform's own; rename yours")
            if agents.setdefault(agent.name, agent) != agent:
                raise StartError(f"NIGHTSHIFT_AGENTS: two different agents are named {agent.name!r}; rename one")
    return Loaded(
        {name: with_memory_tools(agent) for name, agent in agents.items()},
        [_spec(schedule) for schedule in schedules.values()],
    )


def with_memory_tools(agent: Agent) -> Agent:
    """The agent, with the tools of its user's memory if it has one. Raises StartError when it has others so named."""
    if agent.user_memory is None:
        return agent
    from memory.tools import MEMORY_TOOLS  # Qdrant's client takes a second or two to load

    if taken := sorted({t.name for t in MEMORY_TOOLS} & {t.name for t in agent.tools}):
        why = f"agent {agent.name!r} has memory, which brings a tool {taken[0]!r}, and one of its own by that name"
        raise StartError(f"NIGHTSHIFT_AGENTS: {why}; rename the agent's")
    return replace(agent, tools=[*agent.tools, *MEMORY_TOOLS])


def _spec(schedule: Schedule) -> ScheduleSpec:
    try:
        return ScheduleSpec.of({**schedule.to_json(), **NOT_DECLARED}).checked()
    except InvalidError as exc:
        raise StartError(f"NIGHTSHIFT_AGENTS: schedule {schedule.name!r}: {exc}") from exc


def _import(source: str) -> ModuleType:
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        path = Path(source).resolve()
        spec = importlib.util.spec_from_file_location(f"nightshift_agents_{path.parent.name}_{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise StartError(f"NIGHTSHIFT_AGENTS: there is no file {source}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    except StartError:
        raise
    except (Exception, SystemExit) as exc:  # whatever a user's module may raise while it is imported
        text = " ".join(str(exc).split())
        why = text if isinstance(exc, DefinitionError | ImportError) else f"{type(exc).__name__}: {text}"
        raise StartError(f"NIGHTSHIFT_AGENTS: {source}: {why}") from exc


def published(agent: Agent) -> Published:
    """The agent as it is published."""
    return Published(agent.name, agent.version, agent.definition())


def runnable(versions: Iterable[Published], local: dict[str, Agent], remote: Remote | None = None) -> dict[str, Agent]:
    """The agents, by "name@version", of the published versions whose tools this worker has.

    `remote` makes the tool of a definition's item when an MCP server has it, and raises KeyError when none does.
    """
    found: dict[str, Agent] = {}
    for version in versions:
        agent = local.get(version.name)
        if agent is not None and (rebuilt := rebuild(version.definition, agent, remote)) is not None:
            found[f"{version.name}@{version.version}"] = rebuilt
    return found


def rebuild(definition: Json, local: Agent, remote: Remote | None = None) -> Agent | None:
    """The agent of a published definition, with the schemas that it pinned; None when a tool or a rule is missing here.

    The definition of another platform version may name fields that this one does not know: None as well.
    """
    by_name = {t.name: t for t in local.tools}
    try:
        by_name |= {item["name"]: remote(item) for item in definition["tools"] if remote and "pin" in item}
        own = [item for item in definition["tools"] if item["name"] != DELEGATE or not definition.get("agents")]
        pinned = [replace(by_name[item["name"]], **item) for item in own]
        definition = {**definition, "mcp": [McpServer.from_json(item) for item in definition.get("mcp", [])]}
        definition = {**definition, "approvals": rebuilt_rules(definition.get("approvals", {}), local.approvals)}
        definition = {**definition, "guardrails": rebuilt_checks(definition.get("guardrails", []), local.guardrails)}
        if "pattern" in definition:
            definition = {**definition, "pattern": rebuilt_pattern(definition["pattern"], local.pattern)}
        if "memory" in definition:
            definition = {**definition, "memory": UserMemory(**definition["memory"])}
        if local.answers is not None and definition.get("output") == local.answers.schema:
            definition = {**definition, "output": local.output}  # a Pydantic model checks more than its schema says
        return Agent(**{**definition, "budget": Budget(**definition["budget"]), "tools": pinned})
    except (KeyError, TypeError, ValueError, DefinitionError):
        return None
