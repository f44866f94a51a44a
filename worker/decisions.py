"""What people decided about interrupted calls, taken over into the journal by the first attempt after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent_core.entries import Entry, ToolCompleted, ToolReconciled
from agent_core.ports import Journal
from agent_core.state import State, commit
from agent_core.tools import Registry, ToolContext
from agent_core.types import Json


async def take_over(
    decisions: Sequence[Json], state: State, journal: Journal, registry: Registry, context: Callable[[str], ToolContext]
) -> None:
    """Records each decision, with the result of a call that happened, and folds it in. Raises as `Journal.record`."""
    for decision in decisions:
        intent = state.intents.get(decision["call_id"])
        if intent is None or intent.call_id in state.results:
            continue
        entries: list[Entry] = [
            ToolReconciled(intent.call_id, intent.step, intent.name, decision["decision"], "person")
        ]
        if decision["decision"] == "happened":
            told = (intent.name, intent.input, decision["result"])
            result = await registry.as_told(*told, context(intent.call_id))
            about = (intent.call_id, intent.step, intent.name)
            entries.append(ToolCompleted(*about, result.content, result.is_error, settled=intent.reserved))
        await commit(state, journal, *entries)
