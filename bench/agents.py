"""The agent that the bench runs: one trivial tool, so that what is measured is the platform."""

from __future__ import annotations

import dataclasses

from agent_core import Agent, Budget, tool

MODEL = "claude-sonnet-5-5"
INSTRUCTIONS = "You look orders up and say what you found."
MAX_TOKENS = 1024


@tool(effect="read")
async def lookup_order(order_id: str) -> dict[str, str]:
    """Look up one order by its number."""
    return {"order_id": order_id, "status": "shipped"}


bench = Agent(
    name="bench",
    instructions=INSTRUCTIONS,
    model=MODEL,
    tools=[lookup_order],
    max_tokens=MAX_TOKENS,
    budget=Budget(usd="10", steps=100),
)
remembering = dataclasses.replace(bench, name="remembering", memory=True)
