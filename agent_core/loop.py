"""The agent loop: limits, a turn, its tool calls, until the run ends. It keeps no state that the journal has not.

A run that is killed at any point goes on from `State.restore`: open tool calls first, then the next turn.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent_core.agent import Agent
from agent_core.compaction import make_room
from agent_core.defaults import AlwaysClosed
from agent_core.entries import StateChanged
from agent_core.errors import BudgetError, ModelError
from agent_core.messages import tool_uses
from agent_core.outcomes import Batched, Completed, Deferred, Held, Outcome, Paused, Refusal, Stopped
from agent_core.outputs import Output, OutputError
from agent_core.ports import Approver, Breakers, Events, Journal, Model
from agent_core.sanity import circling
from agent_core.server_tools import server_tool_blocks
from agent_core.state import State, commit
from agent_core.tool_calls import Using, run_tools
from agent_core.tools import Registry, ToolContext
from agent_core.turn import BUDGET_BUSY, Backoff, Turn, instructions, take_turn
from agent_core.types import Budget, Json

STOPS = {
    "max_tokens": "the reply reached its limit of output tokens, so none of its tool calls were run",
    "refusal": "the model declined to go on",
    "model_context_window_exceeded": "the conversation no longer fits into the model's context window",
}
"""Stop reasons of the Messages API that end a run without an answer, and what each means."""
MOST_REPAIRS = 2
REPAIR = (
    "[Your answer does not fit what was asked for:\n- {problems}\n"
    "Answer again with nothing but the corrected JSON value.]"
)
CONCLUDING_SHARE, CONCLUDING_SECONDS = 0.1, 60.0
"""With this share of its time left, but at most so many seconds, a run is told to conclude."""


@dataclass(frozen=True, slots=True)
class Ports:
    """All that a run needs of the world."""

    model: Model
    journal: Journal
    approver: Approver
    events: Events
    context: Callable[[str], ToolContext]
    """Makes the context of a tool call from the call's id."""
    backoff: Backoff = field(default_factory=Backoff)
    servers: Mapping[str, Model] = field(default_factory=dict)
    """The models of other servers, by the names that targets have for them."""
    breakers: Breakers = field(default_factory=AlwaysClosed)


async def run(
    state: State,
    *,
    agent: Agent,
    budget: Budget,
    ports: Ports,
    registry: Registry | None = None,
    output: Output | None = None,
) -> Outcome:
    """Runs the agent from `state` until it ends, needs a person or another job, must wait, or is paused.

    `output` is what the answer has to be, instead of what the agent says of it. Limits of money and tokens are the
    journal's, which reserves for each call; those of steps and time are held here.
    Expected endings are values. Raises what is a fault: ModelError, UnknownPriceError, KilledError, StaleAttemptError,
    and whatever the ports raise.
    """
    registry = registry or agent.registry
    output = output or agent.answers
    tools = [*registry.to_json(), *server_tool_blocks(agent.server_tools)]
    turn = Turn(
        agent,
        {**ports.servers, "": ports.model},
        ports.journal,
        ports.events,
        tools,
        len(json.dumps([instructions(agent), tools, agent.parameters])),
        ports.backoff,
        ports.breakers,
        _schema(output),
    )
    using = Using(registry, ports.journal, ports.approver, ports.context)
    remaining = None if budget.seconds is None else max(0.0, budget.seconds - state.elapsed)
    clock = Clock(remaining, budget.seconds)
    try:
        async with asyncio.timeout(remaining) as timeout:
            await asyncio.sleep(0)  # with no time left, nothing is begun
            return await _steps(state, turn, using, budget, output, clock)
    except TimeoutError:
        if not timeout.expired():
            raise
        return Stopped("timeout", f"the job ran for its limit of {budget.seconds:g} seconds", state.last_text())


class Clock:
    """How much of a run's time is left."""

    def __init__(self, remaining: float | None, limit: float | None) -> None:
        self._end = None if remaining is None else time.monotonic() + remaining
        self._conclude = 0.0 if limit is None else min(CONCLUDING_SECONDS, CONCLUDING_SHARE * limit)

    def nearly_out(self) -> bool:
        """Whether only the time to conclude is left."""
        return self._end is not None and self._end - time.monotonic() < self._conclude


async def _steps(
    state: State,
    turn: Turn,
    using: Using,
    budget: Budget,
    output: Output | None,
    clock: Clock,
) -> Outcome:
    while True:
        held_up = await run_tools(state, using, turn.agent.parallel_tools)
        if isinstance(held_up, Refusal):
            return _at_limit(state, turn, held_up)
        if held_up:
            return held_up
        if ended := await _advance(state, turn, using.registry, output) or _limit(state, budget):
            return ended
        if turn.journal.pause_requested():
            return Paused()
        if waiting := await _ask(state, turn, last=state.step + 1 == budget.steps or clock.nearly_out()):
            return waiting


async def _ask(state: State, turn: Turn, *, last: bool) -> Outcome | None:
    """Takes a turn, in a conversation that the model's window has room for; returns what keeps it from that."""
    try:
        waiting = await make_room(state, turn)
        reply = waiting or await take_turn(state, turn, last=last)
    except BudgetError as exc:
        return _at_limit(state, turn, exc.refusal)
    except ModelError as exc:
        if exc.code != "context_window":
            raise
        return Stopped("model_context_window_exceeded", str(exc), state.last_text())
    return reply if isinstance(reply, Batched | Deferred) else None


async def _advance(state: State, turn: Turn, registry: Registry, output: Output | None) -> Completed | Stopped | None:
    """Draws the conclusion of where the state stands: the end of the run, or what leads on, recorded."""
    schema = _schema(output)
    if state.step == 0 and not state.phase and (opening := turn.agent.pattern.opening(schema)):
        await commit(state, turn.journal, opening)
        return None
    move: StateChanged | Completed | Stopped | None
    if (result := _final_result(state, registry)) is not None:
        move = _concluded(state, result, output)
    elif isinstance(move := _ending(state, turn.agent) or circling(state), Completed):
        move = _answered(state, turn.agent, output)
    if isinstance(move, StateChanged):
        await commit(state, turn.journal, move)
        return None
    return move


def _answered(state: State, agent: Agent, output: Output | None) -> StateChanged | Completed | Stopped:
    """What follows an answer: by the agent's pattern, once it is what the phase expects."""
    text, expected = state.last_text() or "", output
    if state.phase:
        own = output is not None and state.expects == output.schema
        expected = None if state.expects is None else output if own else Output(state.expects)
    try:
        answer = text if expected is None else expected.parse(text)
    except OutputError as exc:
        return _unfit(state, exc, state.last_text())
    move = agent.pattern.after(state, answer, _schema(output))
    if isinstance(move, Completed) and output is not None and isinstance(move.output, str):
        return Completed(output.parse(move.output))  # the answer of an earlier phase, which was found to fit
    return move


def _final_result(state: State, registry: Registry) -> str | None:
    """The first result of a final tool, in the order of the last reply, once all its calls have theirs."""
    calls = next((tool_uses(message) for message in reversed(state.messages) if message["role"] == "assistant"), [])
    if not all(call["id"] in state.results for call in calls):
        return None
    results = [state.results[call["id"]] for call in calls]
    return next((each.content for each in results if registry.final(each.name) and not each.is_error), None)


def _concluded(state: State, result: str, output: Output | None) -> StateChanged | Completed | Stopped:
    """What follows the result of a final tool, whatever the agent's pattern had in mind."""
    try:
        return Completed(result if output is None else output.parse(result))
    except OutputError as exc:
        return _unfit(state, exc, result)


def _unfit(state: State, fault: OutputError, answer: str | None) -> StateChanged | Stopped:
    if state.repairs < MOST_REPAIRS and not state.final:
        return StateChanged(state.phase, state.step, "repair", REPAIR.format(problems="\n- ".join(fault.problems)))
    return Stopped("validation_failed", f"the answer does not fit what was asked for: {fault}", answer)


def _schema(output: Output | None) -> Json | None:
    return None if output is None else output.schema


def _at_limit(state: State, turn: Turn, refusal: Refusal) -> Stopped | Held | Deferred:
    if refusal.busy:
        return Deferred(turn.backoff.deferral, BUDGET_BUSY, refusal.detail)
    if refusal.at_limit == "pause":
        return Held(refusal)
    return Stopped("budget_exceeded", refusal.detail, state.last_text(), refusal.unit, refusal)


def _ending(state: State, agent: Agent) -> Completed | Stopped | None:
    """How the last reply ends the run, if it does. Every stop reason is a defined state, an unknown one too."""
    match state.stop_reason:
        case None | "pause_turn":
            return None
        case "end_turn" | "stop_sequence":
            return Completed(state.last_text() or "")
        case "max_tokens" if state.final and state.allowed < agent.max_tokens:
            detail = "the last reply that the budget had room for reached its limit of output tokens"
            return Stopped("budget_exceeded", detail, state.last_text(), code="usd")
        case "max_tokens" | "refusal" | "model_context_window_exceeded" as reason:
            return Stopped(reason, STOPS[reason], state.last_text())
        case reason:  # a word of a later API, or tool_use without a call
            detail = f"the model stopped with {reason!r}, and no way leads on from there"
            return Stopped("error", detail, state.last_text(), code=reason)


def _limit(state: State, budget: Budget) -> Stopped | None:
    """The limit of turns that the job has reached, if any; those of money and tokens are held by each reservation."""
    if budget.steps is not None and state.step >= budget.steps:
        return Stopped("max_steps", f"the job took its limit of {budget.steps} steps", state.last_text())
    return None
