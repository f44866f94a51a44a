"""An agent that asks before it moves money; its tools leave traces as those of `tests.integration.agents` do."""

from __future__ import annotations

from pathlib import Path

from agent_core import Agent, Budget, ask, tool, tool_context
from agent_core.toolbox import ask_human


def trace(folder: str, name: str, text: str) -> None:
    with (Path(folder) / name).open("a", encoding="utf-8") as file:
        file.write(f"{tool_context().call_id} {text}\n")


@tool(effect="destructive")
async def wipe(folder: str, text: str) -> str:
    """Wipes something."""
    trace(folder, "wipe", text)
    return f"wiped {text}"


@tool(effect="write")
async def spend(folder: str, text: str) -> str:
    """Spends something."""
    trace(folder, "spend", text)
    return f"spent {text}"


@tool(effect="destructive")
async def purge(folder: str, text: str) -> str:
    """Purges something, unless somebody objects."""
    trace(folder, "purge", text)
    return f"purged {text}"


asker = Agent(
    name="asker",
    instructions="Do as the script says.",
    model="claude-sonnet-5-5",
    max_tokens=256,
    budget=Budget(usd="5"),
    tools=[wipe, spend, purge, ask_human],
    approvals={
        "spend": ask(when=lambda call: call["text"] != "little", requester_may_decide=False),
        "purge": ask(expires_in=0.2, on_expiry="approve"),
    },
)
