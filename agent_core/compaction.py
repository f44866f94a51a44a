"""Keeps a long conversation inside the model's context window: what is old gives way to a summary of it.

The summary is anchored: it has fixed sections, each new one takes the earlier one up, and the task, what the model was
last told, and the newest turns with their tool calls stay as they are, word for word. Nothing is taken out that no
summary has seen, unless there is no summary to be had; then the oldest tool results go first.
"""

from __future__ import annotations

from agent_core.errors import BudgetError, ModelError
from agent_core.state import State, commit
from agent_core.turn import Ask, Turn, ask
from agent_core.types import Batched, Compacted, Deferred, Json, ResultsCleared

FULL = 0.75
"""The share of the context window at which room is made."""
KEPT = 0.25
"""The share of the conversation that stays word for word."""
MOST_SUMMARY = 0.2
"""The share of the window that a summary may have, at three bytes for a token."""
MOST_ATTEMPTS = 2
LEAST_RESULT = 400
"""Characters; to take out a result that is shorter is not worth it."""
RESULTS_KEPT = 4
SECTIONS = ("## Facts", "## Decisions", "## Done", "## Open", "## Next")
SUMMARISE = (
    "[The conversation is getting too long and will go on from a summary instead. Write that summary now, for "
    "yourself, with exactly these headings:\n"
    "## Facts: every name, number, id, date, path and quotation learned so far that may still be needed, one a line\n"
    "## Decisions: what was decided, by whom, and why; what was approved or refused\n"
    "## Done: what was done, with its results\n"
    "## Open: questions and tool calls without an answer yet\n"
    "## Next: what comes next\n"
    "Take over all that is in an earlier summary and still holds. Leave nothing out because it seems obvious. The task "
    "itself stays and need not be repeated. Write nothing else, and call no tool.]"
)


async def make_room(state: State, turn: Turn) -> Batched | Deferred | None:
    """Makes the conversation smaller when it fills its share of the window; returns what keeps the run waiting, if
    anything does. Raises as `turn.ask` does, but for what only means that no summary can be had.
    """
    window = turn.agent.context_window
    while state.context_tokens() > FULL * window:
        kept_from = _kept_from(state)
        if state.summary is not None and kept_from is not None and is_sound(state.summary, window):
            await commit(state, turn.journal, Compacted(state.step, state.summary, kept_from))
        elif kept_from is not None and state.summaries < MOST_ATTEMPTS:
            if held_up := await _summarise(state, turn, kept_from):
                return held_up
        elif old := _old_results(state.messages):
            await commit(state, turn.journal, ResultsCleared(state.step, old))
        else:
            return None  # the provider says whether it still fits
    return None


def is_sound(summary: str, window: int) -> bool:
    """Whether a text may take the place of what it sums up: it has all its sections, says something, and is short."""
    positions = [summary.find(section) for section in SECTIONS]
    says = sum(len(line) for line in summary.splitlines() if line not in SECTIONS) >= 40
    return -1 not in positions and positions == sorted(positions) and says and len(summary) <= 3 * MOST_SUMMARY * window


async def _summarise(state: State, turn: Turn, kept_from: int) -> Batched | Deferred | None:
    what = Ask("summariser", state.step, state.messages[:kept_from], SUMMARISE, tools=False, may_shrink=False)
    try:
        reply = await ask(state, turn, what)
    except BudgetError as exc:
        if exc.refusal.busy or exc.refusal.at_limit == "pause":
            raise
        state.summaries = MOST_ATTEMPTS  # not recorded: whoever goes on meets the same limit
        return None
    except ModelError:
        state.summaries = MOST_ATTEMPTS
        return None
    return reply if isinstance(reply, Batched | Deferred) else None


def _kept_from(state: State) -> int | None:
    """Where the part begins that stays: at a reply, so that no call is parted from its result. None: nothing is old."""
    sizes = [len(str(message["content"])) for message in state.messages]
    budget, kept_from = KEPT * sum(sizes), None
    for index in range(len(state.messages) - 1, state.head, -1):
        budget -= sizes[index]
        if state.messages[index]["role"] == "assistant":
            if kept_from is not None and budget < 0:
                break
            kept_from = index
    return kept_from


def _old_results(messages: list[Json]) -> list[str]:
    """The tool results that go first: the older half of those that are long, the newest few apart."""
    blocks = [
        block
        for message in messages
        if isinstance(message["content"], list)
        for block in message["content"]
        if block.get("type") == "tool_result"
    ]
    long = [block["tool_use_id"] for block in blocks[:-RESULTS_KEPT] if len(str(block["content"])) >= LEAST_RESULT]
    return long[: (len(long) + 1) // 2]
