"""Keeps a long conversation inside the model's context window: what is old gives way to a summary of it.

Before a job's first reply that is the conversation of its session, and from then on the job's own.

The summary is anchored: it has fixed sections, each new one takes the earlier one up, and the task, what the model was
last told, and the newest turns with their tool calls stay as they are, word for word. Nothing is taken out that no
summary has seen, unless there is no summary to be had; then the oldest tool results go first.
"""

from __future__ import annotations

from agent_core.entries import Compacted, ModelCompleted, ResultsCleared
from agent_core.errors import BudgetError, ModelError
from agent_core.messages import size_of
from agent_core.outcomes import Batched, Deferred
from agent_core.state import State, commit
from agent_core.turn import Ask, Turn, ask
from agent_core.types import Json

FULL = 0.75
"""The share of the context window at which room is made."""
LONG_SESSION = 0.4
"""The share of the context window at which a session is summed up before a job goes on with it."""
KEPT = 0.25
"""The share of the conversation that stays word for word."""
MOST_SUMMARY = 0.2
"""The share of the window that a summary may have, at three bytes for a token."""
LEAST_OLD = 0.1
"""The share of the conversation that has to be old for a summary of it to be worth its price."""
MOST_ATTEMPTS = 2
LEAST_RESULT = 400
"""Characters; to take out a result that is shorter is not worth it."""
RESULTS_KEPT = 4
SECTIONS = ("## Facts", "## Decisions", "## Done", "## Open", "## Next")
_SUMMARISE = (
    "[The conversation is getting too long and will go on from a summary instead. Write that summary now, for "
    "yourself, with exactly these headings:\n"
    "## Facts: every name, number, id, date, path and quotation learned so far that may still be needed, one a line\n"
    "## Decisions: what was decided, by whom, and why; what was approved or refused\n"
    "## Done: what was done, with its results\n"
    "## Open: questions and tool calls without an answer yet\n"
    "## Next: what comes next\n"
    "Take over all that is in an earlier summary and still holds. Leave nothing out because it seems obvious. {asked} "
    "Write nothing else, and call no tool.]"
)
SUMMARISE = _SUMMARISE.format(asked="The task itself stays and need not be repeated.")
SUMMARISE_SESSION = _SUMMARISE.format(
    asked="What the user asked for each time, and wants in general, is a fact too; the next task comes after this."
)


async def make_room(state: State, turn: Turn) -> Batched | Deferred | None:
    """Makes the conversation smaller when it fills its share of the window; returns what keeps the run waiting, if
    anything does. Raises as `turn.ask` does, but for what only means that no summary can be had.
    """
    if state.submitted is not None and state.submitted.role != "summariser":
        return None  # a batch has the next reply, whatever was said since
    window, may_ask = turn.agent.context_window, True
    while (full := state.context_tokens() > FULL * window) or _is_long_session(state, window):
        first, end = state.compactable
        if state.summary is not None and is_sound(state.summary, window) and state.covered <= end - first:
            await commit(state, turn.journal, Compacted(state.step, state.summary, state.covered))
        elif may_ask and state.summaries < MOST_ATTEMPTS and (kept_from := _kept_from(state, window)) is not None:
            reply = await _summary(state, turn, kept_from)
            if isinstance(reply, Batched) or (isinstance(reply, Deferred) and full):
                return reply
            may_ask = isinstance(reply, ModelCompleted)
        elif full and (results := _old_results(state.messages)):
            await commit(state, turn.journal, ResultsCleared(state.step, results))
            may_ask = False
        else:
            return None  # the provider says whether it still fits
    return None


def is_sound(summary: str, window: int) -> bool:
    """Whether a text may take the place of what it sums up: it has all its sections, says something, and is short."""
    positions = [summary.find(section) for section in SECTIONS]
    says = sum(len(line) for line in summary.splitlines() if line not in SECTIONS) >= 40
    return -1 not in positions and positions == sorted(positions) and says and len(summary) <= 3 * MOST_SUMMARY * window


async def _summary(state: State, turn: Turn, kept_from: int) -> ModelCompleted | Batched | Deferred | None:
    """Asks for a summary of what stands before `kept_from`; None when none can be had."""
    note = SUMMARISE if state.step else SUMMARISE_SESSION
    what = Ask("summariser", state.step, state.messages[:kept_from], note, tools=False, may_shrink=False)
    try:
        return await ask(state, turn, what)
    except BudgetError as exc:
        if exc.refusal.busy or exc.refusal.at_limit == "pause":
            raise
    except ModelError:
        pass
    return None


def _is_long_session(state: State, window: int) -> bool:
    """Whether what the session said before the job's task is too long to begin with; a third of a token for a byte."""
    return state.step == 0 and sum(map(size_of, state.messages[: state.head - 1])) > 3 * LONG_SESSION * window


def _kept_from(state: State, window: int) -> int | None:
    """Where the part begins that stays: at a reply, so that no call is parted from its result. None: little is old."""
    sizes, roles = [len(str(m["content"])) for m in state.messages], [m["role"] for m in state.messages]
    first, end = state.compactable
    whole, kept_from = sum(sizes), first
    budget = KEPT * whole
    for index in range(end - 1, first + 1, -1):  # two messages at least give way: there are fewer each time
        budget -= sizes[index]
        if (roles[index - 1], roles[index]) == ("user", "assistant"):  # a paused reply and the next one are one
            # a session may be longer than this agent's window, and is then summed up part by part
            if kept_from > first and budget < 0 and sum(sizes[:kept_from]) <= 3 * window:
                break
            kept_from = index
    return kept_from if sum(sizes[first:kept_from]) >= LEAST_OLD * whole else None


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
