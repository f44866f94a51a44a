"""An agent that pays at a bank of the test's: under a key that the bank honours, with a look at its books, plainly."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from agent_core import Agent, Budget, DidNotHappen, Happened, tool, tool_context


async def ask(bank: str, path: str, **query: str) -> Any:
    """The bank's answer to a request that carries the call's id."""
    address = f"{bank}/{path}?{urlencode({'key': tool_context().call_id, **query})}"

    def fetch() -> Any:
        with urlopen(address, timeout=60) as answer:
            return json.load(answer)

    return await asyncio.to_thread(fetch)


@tool(effect="write", idempotent=True)
async def charge(bank: str, hold: str = "") -> Any:
    """Pays once for each key."""
    return await ask(bank, "charge", hold=hold)


async def look(bank: str, hold: str = "") -> Happened | DidNotHappen:
    found = await ask(bank, "books")
    return Happened(found) if found else DidNotHappen()


@tool(effect="write", reconcile=look)
async def transfer(bank: str, hold: str = "") -> Any:
    """Pays each time; the books say what was paid."""
    return await ask(bank, "pay", hold=hold)


@tool(effect="write")
async def pay(bank: str, hold: str = "") -> Any:
    """Pays each time."""
    return await ask(bank, "pay", hold=hold)


payer = Agent(
    name="payer",
    instructions="Pay as the script says.",
    model="claude-sonnet-5-5",
    max_tokens=512,
    budget=Budget(usd="5"),
    tools=[charge, transfer, pay],
)
