"""An agent for the tests of the client: a tool that asks a person, and one that keeps a file."""

from typing import Any

from agent_core import Agent, tool, tool_context


@tool(effect="destructive")
async def refund(order: str) -> dict[str, Any]:
    """Pay an order back."""
    return {"refunded": order}


@tool(effect="read")
async def report(text: str) -> dict[str, Any]:
    """Keep a text as a file."""
    await tool_context().save_artifact("report.txt", text.encode())
    return {"kept": True}


clerk = Agent(name="clerk", instructions="Help.", model="claude-sonnet-5-5", tools=[refund, report])
