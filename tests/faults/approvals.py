"""An agent whose jobs park at once: it asks before it counts a payment; see `tests.faults.agents`."""

from __future__ import annotations

from agent_core import Agent, Budget, tool
from tests.faults.agents import move_money


@tool(effect="destructive")
async def release(folder: str, order: str) -> str:
    """Releases the money of an order."""
    return move_money(folder, "release", order)


gatekeeper = Agent(
    name="gatekeeper",
    instructions="Do as the script says.",
    model="claude-sonnet-5-5",
    max_tokens=256,
    budget=Budget(usd="5"),
    tools=[release],
)
