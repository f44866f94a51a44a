"""An agent as a library: a tool, an agent, a run. No Redis and no HTTP server; the SDK reads ANTHROPIC_API_KEY.

python examples/library/lookup.py "What did order A-1042 cost?"
"""

import asyncio
import sys
from contextlib import aclosing
from typing import Annotated

from agent_core import Agent, ClaudeModel, ToolError, run_agent, tool

ORDERS = {"A-1042": {"status": "shipped", "total": "17.90"}}


@tool(effect="read")
async def lookup_order(order_id: Annotated[str, "the order's number, like A-1042"]) -> dict[str, str]:
    """Looks up one order: its status and its total."""
    if order_id not in ORDERS:
        raise ToolError(f"there is no order {order_id}", code="not_found")
    return ORDERS[order_id]


support = Agent(
    name="support",
    instructions="Answer questions about orders. Look an order up before you speak of it.",
    model="claude-sonnet-5-5",
    tools=[lookup_order],
)


async def ask(question: str) -> str | None:
    """The agent's answer."""
    async with aclosing(ClaudeModel.connect()) as model:
        return (await run_agent(support, question, model=model)).output


if __name__ == "__main__":
    print(asyncio.run(ask(" ".join(sys.argv[1:]) or "Where is order A-1042?")))  # noqa: T201
