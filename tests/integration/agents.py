"""Agents whose tools leave traces on disk, so that a test can count what really happened and decide when it goes on.

Each tool takes `folder`, a directory of the test's. A tool with `hold` waits until the file of that name is there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from agent_core import Agent, Budget, tool, tool_context

POLL_SECONDS = 0.01


async def held(folder: str, hold: str) -> None:
    while hold and not (Path(folder) / hold).exists():  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)


def trace(folder: str, name: str, text: str) -> None:
    with (Path(folder) / name).open("a", encoding="utf-8") as file:
        file.write(f"{tool_context().call_id} {text}\n")


@tool(effect="read")
async def echo(text: str) -> str:
    """Gives the text back."""
    return text


@tool(effect="read")
async def slow_read(folder: str, hold: str, text: str = "") -> str:
    """Reads slowly: until the file `hold` is there."""
    trace(folder, "slow_read", text)
    await held(folder, hold)
    return text or "read"


@tool(effect="write")
async def note(folder: str, text: str, hold: str = "") -> str:
    """Appends a line to the file `note`, then waits for `hold`."""
    trace(folder, "note", text)
    await held(folder, hold)
    return f"noted {text}"


@tool(effect="write", idempotent=True)
async def charge(folder: str, text: str, hold: str = "") -> str:
    """Appends a line to the file `charge`, then waits for `hold`."""
    trace(folder, "charge", text)
    await held(folder, hold)
    return f"charged {text}"


@tool(effect="destructive")
async def wipe(folder: str) -> str:
    """Wipes the folder, or says so."""
    trace(folder, "wipe", "wiped")
    return "wiped"


@tool(effect="read")
def block(folder: str, hold: str) -> str:
    """Blocks its thread until the file `hold` is there."""
    trace(folder, "block", "")
    while not (Path(folder) / hold).exists():
        time.sleep(POLL_SECONDS)
    return "unblocked"


@tool(effect="read")
async def stall(folder: str, seconds: float) -> str:
    """Blocks the worker's event loop, as a badly written tool does."""
    trace(folder, "stall", "")
    time.sleep(seconds)  # noqa: ASYNC251
    return "stalled"


@tool(effect="read")
async def die(folder: str) -> str:
    """Kills its worker, but for when the file `spare` is there."""
    trace(folder, "die", "")
    if not (Path(folder) / "spare").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return "spared"


@tool(effect="read")
async def leave() -> str:
    """Calls sys.exit, as code that was written for a command line does."""
    sys.exit(3)


tester = Agent(
    name="tester",
    instructions="Do as the script says.",
    model="claude-sonnet-5-5",
    max_tokens=512,
    budget=Budget(usd="5"),
    tools=[echo, slow_read, note, charge, wipe, block, stall, die, leave],
)
