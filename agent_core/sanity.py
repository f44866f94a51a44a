"""Notices when a run goes in circles, and when a tool is of no use to it."""

from __future__ import annotations

from agent_core.entries import StateChanged
from agent_core.outcomes import Stopped
from agent_core.registry import ToolResult, failure
from agent_core.state import REPEATS, State

MOST_FAILURES = 3
WARNING = (
    "[You made the same tool call with the same arguments {times} times and got the same result each time. Doing it "
    "again will not change it. Try another way, or give the best answer you can and say what is missing.]"
)


def circling(state: State) -> StateChanged | Stopped | None:
    """What a call calls for that was made `REPEATS` times of late with the same result: a warning, then the end.

    None when there is none, or none since the warning.
    """
    if any(digest in state.warned for digest in state.repeated(REPEATS + 1)):
        detail = f"the same tool call was made more than {REPEATS} times with the same result, in spite of a warning"
        return Stopped("loop_detected", detail, state.last_text())
    if state.repeated() - state.warned:
        return StateChanged(state.phase, state.step, "loop", WARNING.format(times=REPEATS))
    return None


def out_of_order(state: State, tool: str) -> ToolResult | None:
    """The result of a call of a tool that failed too often in a row, None for any other."""
    if state.failures[tool] < MOST_FAILURES:
        return None
    told = f"{tool} failed {MOST_FAILURES} times in a row and is out of use for the rest of this job; go on without it"
    return failure("tool_out_of_order", told)
