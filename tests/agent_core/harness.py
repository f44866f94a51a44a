"""What the tests of agent_core share: tools that log what they did, journals that fail, and ports around them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from agent_core import Agent, Budget, Outcome, Tool, tool, tool_context
from agent_core.defaults import MemoryJournal, NoEvents, RefuseDestructive
from agent_core.entries import Entry, entry_from_json, entry_to_json
from agent_core.loop import Ports, run
from agent_core.ports import Approver, Events, Journal, Model
from agent_core.state import State
from agent_core.tools import ToolContext
from agent_core.turn import Backoff
from agent_core.types import Json

MODEL = "claude-sonnet-5-5"
TASK: Json = {"role": "user", "content": "go on"}
AT_ONCE = Backoff(base=0.0)


class Killed(Exception):
    """The process is gone."""


class MortalJournal(MemoryJournal):
    """Dies at its n-th record: before it is kept, or after it is kept and before anyone hears of it."""

    def __init__(self, dies_at: int, *, keeps_last: bool) -> None:
        super().__init__()
        self.dies_at = dies_at
        self.keeps_last = keeps_last

    async def record(self, *entries: Entry) -> None:
        if len(self.entries) + 1 >= self.dies_at:
            if self.keeps_last and len(self.entries) < self.dies_at:
                self.entries.extend(entries)
            raise Killed
        await super().record(*entries)


class Log:
    """Tools of every effect class, and which of their calls began."""

    def __init__(self) -> None:
        self.began: Counter[str] = Counter()

    @property
    def tools(self) -> list[Tool]:
        @tool(effect="read")
        async def look(at: int) -> Json:
            """Looks at something."""
            self.began[tool_context().call_id] += 1
            return {"seen": at}

        @tool(effect="write")
        async def change(to: int) -> str:
            """Changes something."""
            self.began[tool_context().call_id] += 1
            return f"changed to {to}"

        @tool(effect="write", idempotent=True)
        async def pay(amount: int) -> str:
            """Pays something."""
            self.began[tool_context().call_id] += 1
            return f"paid {amount}"

        @tool(effect="destructive")
        async def erase(what: int) -> str:
            """Erases something."""
            self.began[tool_context().call_id] += 1
            return f"erased {what}"

        return [look, change, pay, erase]


def make_agent(tools: Iterable[Tool] = (), **changes: Any) -> Agent:
    return Agent(**{"name": "tester", "instructions": "Be brief.", "model": MODEL, "tools": list(tools), **changes})


def make_ports(
    model: Model,
    journal: Journal | None = None,
    *,
    approver: Approver | None = None,
    events: Events | None = None,
    context: Callable[[str], ToolContext] | None = None,
    backoff: Backoff = AT_ONCE,
) -> Ports:
    return Ports(
        model=model,
        journal=journal or MemoryJournal(),
        approver=approver or RefuseDestructive(),
        events=events or NoEvents(),
        context=context or (lambda call_id: ToolContext("job_1", call_id, Path())),
        backoff=backoff,
    )


async def play(agent: Agent, ports: Ports, state: State | None = None, budget: Budget | None = None) -> Outcome:
    """Runs an agent from a state, or from the first message."""
    return await run(state or State([TASK]), agent=agent, budget=budget or agent.budget, ports=ports)


def reread(entries: Iterable[Entry]) -> list[Entry]:
    """The entries as they come back from where they were kept as JSON."""
    texts = [(entry.TYPE, json.dumps(entry_to_json(entry))) for entry in entries]
    found = [entry_from_json(type_, json.loads(text)) for type_, text in texts]
    return [entry for entry in found if entry is not None]
