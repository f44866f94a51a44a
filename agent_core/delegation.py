"""The tool by which an agent hands parts of its task to other agents, each part a job of its own."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Annotated, Any

from agent_core.context import tool_context
from agent_core.errors import ToolError
from agent_core.tools import Tool, tool

NAME = "delegate"


@functools.cache
def delegation(agents: tuple[str, ...]) -> Tool:
    """The `delegate` tool of an agent that may delegate to the named ones."""

    @tool(name=NAME, effect="write", idempotent=True)
    async def delegate(
        agent: Annotated[str, "who is to do it"],
        task: Annotated[
            str,
            "the part of the task, with all that is needed to do it: the files are there, and nothing else is known",
        ],
        usd: Annotated[str | None, 'the most it may cost in US dollars, as "0.25"; left out: what is left here'] = None,
    ) -> Any:
        """Hand a part of the task to another agent and get back what it found."""
        if agent not in agents:
            raise ToolError(
                f"there is no agent {agent!r} to delegate to; expected {', '.join(agents)}", code="no_agent"
            )
        context = tool_context()
        if context.children is None:
            raise ToolError("this run has no workers to delegate to", code="no_workers")
        return await context.children.delegate(context.call_id, agent, task, usd)

    about = f"{delegate.description} Several calls in one turn run at the same time. Agents: {', '.join(agents)}."
    schema = {**delegate.input_schema, "properties": {**delegate.input_schema["properties"]}}
    schema["properties"]["agent"] = {**schema["properties"]["agent"], "enum": list(agents)}
    return replace(delegate, description=about, input_schema=schema)
