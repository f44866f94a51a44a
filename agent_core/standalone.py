"""An agent as a library: one call, no Redis, no HTTP server."""

from __future__ import annotations

import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from agent_core.agent import Agent
from agent_core.defaults import MemoryJournal, NoEvents, RefuseDestructive
from agent_core.guardrails import Guard
from agent_core.loop import Ports, run
from agent_core.outcomes import Completed, Outcome, Stopped
from agent_core.ports import Approver, Events, Journal, Model
from agent_core.state import State
from agent_core.tools import ToolContext
from agent_core.types import Usage


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended and what it used."""

    outcome: Outcome
    usage: Usage
    state: State

    @property
    def output(self) -> str | None:
        """The answer, or the partial result of a run that was stopped."""
        return self.outcome.output if isinstance(self.outcome, Completed | Stopped) else None


async def run_agent(
    agent: Agent,
    task: str,
    *,
    model: Model,
    journal: Journal | None = None,
    approver: Approver | None = None,
    events: Events | None = None,
    workspace: Path | None = None,
) -> Result:
    """Runs one task to its end in this process. Destructive tools are denied unless `approver` says otherwise.

    `workspace` is the directory of the tools' files; a temporary one is made when it is None. Raises as `loop.run`.
    """
    run_id = f"run_{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory(prefix="agent-") as scratch:
        place = workspace or Path(scratch)
        ports = Ports(
            model=model,
            journal=journal or MemoryJournal(agent.budget),
            approver=approver or RefuseDestructive(),
            events=events or NoEvents(),
            context=lambda call_id: ToolContext(run_id, call_id, place),
        )
        state = State([{"role": "user", "content": task}])
        guard = Guard(agent.guardrails, state, ports.journal, task)
        outcome = await guard.around(lambda: run(state, agent=agent, budget=agent.budget, ports=ports))
    return Result(outcome, state.usage, state)
