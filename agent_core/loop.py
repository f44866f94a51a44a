"""The agent loop: limits, a turn, its tool calls, until the run ends. It keeps no state that the journal has not.

A run that is killed at any point goes on from `State.restore`: open tool calls first, then the next turn.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from agent_core.agent import Agent
from agent_core.errors import BudgetError
from agent_core.failpoints import failpoint
from agent_core.ports import Approver, Decision, Events, Journal, Model
from agent_core.reconcile import DidNotHappen
from agent_core.state import State, commit
from agent_core.tools import Registry, ToolContext, ToolResult, failure
from agent_core.turn import BUDGET_BUSY, Backoff, Turn, take_turn
from agent_core.types import (
    ApprovalRequested,
    Batched,
    Budget,
    Completed,
    Deferred,
    Held,
    Json,
    Outcome,
    Paused,
    Refusal,
    Stopped,
    Suspended,
    ToolCompleted,
    ToolReconciled,
    ToolRequested,
)

T = TypeVar("T")
STOPS = {
    "max_tokens": "the reply reached its limit of output tokens, so none of its tool calls were run",
    "refusal": "the model declined to go on",
    "model_context_window_exceeded": "the conversation no longer fits into the model's context window",
}
"""Stop reasons of the Messages API that end a run without an answer, and what each means."""
FINISHING_SECONDS = 1.0
"""How long a call that must not be repeated may go on to its end when the run is cancelled, before it is cut off."""
DENIED = failure("denied", "this call was not allowed; go on without it")


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


async def run(state: State, *, agent: Agent, budget: Budget, ports: Ports, registry: Registry | None = None) -> Outcome:
    """Runs the agent from `state` until it ends, needs a person, must wait, or is paused.

    Limits of money and tokens are the journal's, which reserves for each call; those of steps and time are held here.
    Expected endings are values. Raises what is a fault: ModelError, UnknownPriceError, KilledError, StaleAttemptError,
    and whatever the ports raise.
    """
    registry = registry or agent.registry
    tools = registry.to_json()
    overhead = len(json.dumps([agent.instructions, tools, agent.parameters]))
    turn = Turn(agent, ports.model, ports.journal, ports.events, tools, overhead, ports.backoff)
    remaining = None if budget.seconds is None else max(0.0, budget.seconds - state.elapsed)
    try:
        async with asyncio.timeout(remaining) as clock:
            await asyncio.sleep(0)  # with no time left, nothing is begun
            return await _steps(state, turn, budget, ports, registry)
    except TimeoutError:
        if not clock.expired():
            raise
        return Stopped("timeout", f"the job ran for its limit of {budget.seconds:g} seconds", state.last_text())


async def _steps(state: State, turn: Turn, budget: Budget, ports: Ports, registry: Registry) -> Outcome:
    while True:
        if held_up := await _run_tools(state, turn.agent, ports, registry):
            return held_up
        if ended := _ending(state) or _limit(state, budget):
            return ended
        if ports.journal.pause_requested():
            return Paused()
        try:
            reply = await take_turn(state, turn)
        except BudgetError as exc:
            return _at_limit(state, exc.refusal)
        if isinstance(reply, Batched | Deferred):
            return reply


def _at_limit(state: State, refusal: Refusal) -> Stopped | Held | Deferred:
    if refusal.busy:
        return Deferred(Backoff().deferral, BUDGET_BUSY, refusal.detail)
    if refusal.at_limit == "pause":
        return Held(refusal)
    return Stopped("budget_exceeded", refusal.detail, state.last_text(), refusal.unit, refusal)


def _ending(state: State) -> Completed | Stopped | None:
    """How the last reply ends the run, if it does. Every stop reason is a defined state, an unknown one too."""
    match state.stop_reason:
        case None | "pause_turn":
            return None
        case "end_turn" | "stop_sequence":
            return Completed(state.last_text() or "")
        case "max_tokens" if state.final:
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


async def _run_tools(state: State, agent: Agent, ports: Ports, registry: Registry) -> Outcome | None:
    """Runs the open calls of the last reply, at most `parallel_tools` at once, each recorded as it lands.

    Returns what keeps the run from its next turn, if anything does.
    """
    slots = asyncio.Semaphore(agent.parallel_tools)
    lost = [call for call in state.open_calls() if _is_unknown(state, registry, call)]
    await _together(_reconcile(state, ports, registry, call, slots) for call in lost)
    sorted_calls: dict[Decision | Literal["unknown"], list[Json]] = {"run": [], "ask": [], "deny": [], "unknown": []}
    for call in state.open_calls():
        sorted_calls[_decide(state, ports, registry, call)].append(call)
    for call in sorted_calls["deny"]:
        await commit(state, ports.journal, _completed(state, call, DENIED))
    for call in sorted_calls["ask"]:
        if call["id"] not in state.asked:
            await commit(state, ports.journal, ApprovalRequested(**_about(state, registry, call)))
    ran = await _together(_run_tool(state, ports, registry, call, slots) for call in sorted_calls["run"])
    if refused := [refusal for refusal in ran if refusal]:
        return _at_limit(state, refused[0])
    if sorted_calls["unknown"]:
        return Suspended("needs_reconcile", sorted_calls["unknown"])
    return Suspended("approval", sorted_calls["ask"]) if sorted_calls["ask"] else None


async def _together(work: Iterable[Coroutine[None, None, T]]) -> list[T]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
        return [task.result() for task in tasks]
    except BaseExceptionGroup as failed:  # a tool's failure is a result, so this is a fault of the journal
        raise failed.exceptions[0] from None


def _is_unknown(state: State, registry: Registry, call: Json) -> bool:
    """Whether a call was begun, nobody knows how it ended, and it is not to be repeated."""
    intent = state.intents.get(call["id"])
    if intent is None or call["id"] in state.undone:
        return False
    return intent.effect != "read" and not registry.repeatable(call["name"])


async def _reconcile(state: State, ports: Ports, registry: Registry, call: Json, slots: asyncio.Semaphore) -> None:
    """Asks the call's tool what became of it, and records the answer; without one, it stays unknown."""
    if not registry.reconcilable(call["name"]):
        return
    async with slots:
        found = await registry.reconcile(call["name"], call["input"], ports.context(call["id"]))
    if found is None:
        return
    about = (call["id"], state.step, call["name"])
    if isinstance(found, DidNotHappen):
        await commit(state, ports.journal, ToolReconciled(*about, "not_happened", "reconcile"))
    else:
        happened = ToolReconciled(*about, "happened", "reconcile")
        completed = _completed(state, call, found, price=registry.price(call["name"]))
        await commit(state, ports.journal, happened, completed)


def _decide(state: State, ports: Ports, registry: Registry, call: Json) -> Decision | Literal["unknown"]:
    """What becomes of a call that has no result. One that was begun has passed the approver before."""
    if call["id"] in state.intents:
        return "unknown" if _is_unknown(state, registry, call) else "run"
    return ports.approver.decide(call["name"], call["input"], registry.effect(call["name"]), call["id"])


async def _run_tool(
    state: State, ports: Ports, registry: Registry, call: Json, slots: asyncio.Semaphore
) -> Refusal | None:
    """Runs one call; returns the limit that has no room for the tool's price, and has not run it then."""
    price = registry.price(call["name"])
    async with slots:
        if call["id"] not in state.intents or call["id"] in state.undone:
            failpoint("before_intent")
            try:
                await commit(state, ports.journal, ToolRequested(**_about(state, registry, call), reserved=price))
            except BudgetError as exc:
                return exc.refusal
            failpoint("after_intent")
        begun = time.monotonic()
        running = registry.call(call["name"], call["input"], ports.context(call["id"]))
        result = await _finished(running, 0.0 if registry.repeatable(call["name"]) else FINISHING_SECONDS)
        failpoint("after_tool")
        await commit(state, ports.journal, _completed(state, call, result, time.monotonic() - begun, price))
        failpoint("after_result")
    return None


async def _finished(running: Coroutine[None, None, ToolResult], patience: float) -> ToolResult:
    """The result of a call; a cancellation leaves it so many seconds to end by itself, for its result to be kept."""
    task = asyncio.ensure_future(running)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=patience)
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            raise
        return task.result()


def _about(state: State, registry: Registry, call: Json) -> Json:
    effect = registry.effect(call["name"])
    return {"call_id": call["id"], "step": state.step, "name": call["name"], "input": call["input"], "effect": effect}


def _completed(state: State, call: Json, result: ToolResult, seconds: float = 0.0, price: int = 0) -> ToolCompleted:
    about = (call["id"], state.step, call["name"])
    return ToolCompleted(*about, result.content, result.is_error, round(seconds, 4), price)
