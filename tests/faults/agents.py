"""An agent whose tools move money at a counting stub: a file that gets a line for each time the money really moved.

A line is the call's idempotency key, the order and the time in seconds. A line is written at once or not at all, and it
outlives the process. Each tool takes `folder`, a directory of the experiment's.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from agent_core import Agent, Budget, DidNotHappen, Happened, tool, tool_context

POLL_SECONDS = 0.01
FACTS = 20


def move_money(folder: str, way: str, order: str) -> str:
    """Counts one payment."""
    descriptor = os.open(Path(folder) / way, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{tool_context().call_id} {order} {time.time():.6f}\n".encode())
    finally:
        os.close(descriptor)
    return f"{way} {order}"


async def find_refund(folder: str, order: str) -> Happened | DidNotHappen:
    """Whether the stub has the refund."""
    path = Path(folder) / "refund"
    lines = path.read_text().splitlines() if path.exists() else []
    key = tool_context().call_id
    return Happened(f"refund {order}") if any(line.split()[0] == key for line in lines) else DidNotHappen()


@tool(effect="write", idempotent=True)
async def charge(folder: str, order: str) -> str:
    """Charges an order. The payment service takes the call's key: the same key moves the money once."""
    return move_money(folder, "charge", order)


@tool(effect="write")
async def wire(folder: str, order: str) -> str:
    """Wires the money of an order. It knows no key, and cannot be asked."""
    return move_money(folder, "wire", order)


@tool(effect="write", reconcile=find_refund)
async def refund(folder: str, order: str) -> str:
    """Refunds an order. It can be asked afterwards whether it did."""
    return move_money(folder, "refund", order)


@tool(effect="read")
async def look(folder: str, order: str, hold: str = "") -> str:
    """Looks an order up, and waits until the file `hold` is there."""
    move_money(folder, "look", order)
    while hold and not (Path(folder) / hold).exists():  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
    return f"found {order}"


@tool(effect="read")
async def read_page(folder: str, page: int) -> str:
    """Reads a page of a long book. Each of the first pages has a fact on it."""
    move_money(folder, "pages", str(page))
    fact = f"FACT {page}: number {page} is {page * 7919}\n" if page <= FACTS else ""
    return fact + f"Nothing of importance stands on page {page}. " * 35


payer = Agent(
    name="payer",
    instructions="Do as the script says.",
    model="claude-sonnet-5-5",
    max_tokens=256,
    budget=Budget(usd="5"),
    tools=[charge, wire, refund, look],
)

chief = Agent(
    name="chief",
    instructions="Do as the script says.",
    model="claude-sonnet-5-5",
    max_tokens=4096,
    budget=Budget(usd="5"),
    tools=[look],
    agents=["payer", "chief"],
)

reader, quick_reader = (
    Agent(
        name=name,
        instructions="Do as the script says.",
        model="claude-sonnet-5-5",
        max_tokens=1_000,
        budget=Budget(usd=None, steps=1_000),
        tools=[read_page],
        context_window=window,
    )
    for name, window in (("reader", 40_000), ("quick_reader", 6_000))
)

steadfast = Agent(
    name="steadfast",
    instructions="Do as the script says.",
    model="claude-sonnet-5-5",
    fallbacks=["claude-haiku-5-5@second"],
    max_tokens=256,
    budget=Budget(usd="5"),
    tools=[look],
)
