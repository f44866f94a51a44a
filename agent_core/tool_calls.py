"""The tool calls of a reply: sorted by what may become of them, run side by side, each recorded as it lands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from agent_core.context import ToolContext
from agent_core.entries import ApprovalDecided, ToolCompleted, ToolReconciled, ToolRequested
from agent_core.errors import BudgetError
from agent_core.failpoints import failpoint
from agent_core.outcomes import Delegated, Refusal, Suspended
from agent_core.ports import Approver, Decision, Journal
from agent_core.reconcile import DidNotHappen
from agent_core.registry import Registry, ToolResult, failure, success
from agent_core.sanity import out_of_order
from agent_core.state import State, commit
from agent_core.types import Json

T = TypeVar("T")
FINISHING_SECONDS = 1.0
"""How long a call that must not be repeated may go on to its end when the run is cancelled, before it is cut off."""
DENIED = failure("denied", "this call was not allowed; go on without it")


@dataclass(frozen=True, slots=True)
class Using:
    """What the calls of a run need: its tools, and the ports that have to do with them."""

    registry: Registry
    journal: Journal
    approver: Approver
    context: Callable[[str], ToolContext]


async def run_tools(state: State, using: Using, parallel: int) -> Refusal | Suspended | Delegated | None:
    """Runs the open calls of the last reply, at most `parallel` at once, each recorded as it lands.

    Returns what keeps the run from its next turn, if anything does.
    """
    slots = asyncio.Semaphore(parallel)
    lost = [call for call in state.open_calls() if _is_unknown(state, using.registry, call)]
    await _together(_reconcile(state, using, call, slots) for call in lost)
    sorted_calls: dict[Decision | Literal["unknown"], list[Json]] = {"run": [], "ask": [], "deny": [], "unknown": []}
    for call in state.open_calls():
        sorted_calls[_decide(state, using, call)].append(call)
    for call in sorted_calls["deny"]:
        await commit(state, using.journal, _completed(state, call, _told(state.decided.get(call["id"]))))
    ran = await _together(_run_tool(state, using, call, slots) for call in sorted_calls["run"])
    if refused := [held_up for held_up in ran if isinstance(held_up, Refusal)]:
        return refused[0]
    if sorted_calls["unknown"]:
        return Suspended("needs_reconcile", sorted_calls["unknown"])
    if sorted_calls["ask"]:
        return Suspended("approval", sorted_calls["ask"])
    pending = [held_up for held_up in ran if isinstance(held_up, str)]
    return Delegated(pending) if pending else None


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


async def _reconcile(state: State, using: Using, call: Json, slots: asyncio.Semaphore) -> None:
    """Asks the call's tool what became of it, and records the answer; without one, it stays unknown."""
    if not using.registry.reconcilable(call["name"]):
        return
    async with slots:
        found = await using.registry.reconcile(call["name"], call["input"], using.context(call["id"]))
    if found is None:
        return
    about = (call["id"], state.step, call["name"])
    if isinstance(found, DidNotHappen):
        await commit(state, using.journal, ToolReconciled(*about, "not_happened", "reconcile"))
    else:
        happened = ToolReconciled(*about, "happened", "reconcile")
        completed = _completed(state, call, found, price=using.registry.price(call["name"]))
        await commit(state, using.journal, happened, completed)


def _decide(state: State, using: Using, call: Json) -> Decision | Literal["unknown"]:
    """What becomes of a call that has no result. One that was begun has passed the approver before."""
    if call["id"] in state.intents:
        return "unknown" if _is_unknown(state, using.registry, call) else "run"
    if state.final or not state.tools:
        return "deny"  # the model was told that no call would be made
    if ruling := state.decided.get(call["id"]):
        return "run" if ruling.decision == "approve" and ruling.answer is None else "deny"
    return using.approver.decide(call["name"], call["input"], using.registry.effect(call["name"]), call["id"])


def _told(ruling: ApprovalDecided | None) -> ToolResult:
    """What the model gets to see of a call that is not run: a person's answer, or that it was not allowed."""
    if ruling is None:
        return DENIED
    if ruling.decision == "approve":
        return success(ruling.answer)
    return failure("denied", f"this call was not allowed: {ruling.reason}") if ruling.reason else DENIED


async def _run_tool(state: State, using: Using, call: Json, slots: asyncio.Semaphore) -> Refusal | str | None:
    """Runs one call; returns the limit that has no room for the tool's price, and has not run it then, or the id of
    the job that the call is now.
    """
    price = using.registry.price(call["name"])
    async with slots:
        if call["id"] not in state.intents or call["id"] in state.undone:
            if refused := out_of_order(state, call["name"]):
                await commit(state, using.journal, _completed(state, call, refused))
                return None
            failpoint("before_intent")
            try:
                await commit(state, using.journal, ToolRequested(**_about(state, using.registry, call), reserved=price))
            except BudgetError as exc:
                return exc.refusal
            failpoint("after_intent")
        begun = time.monotonic()
        running = using.registry.call(call["name"], call["input"], using.context(call["id"]))
        result = await _finished(running, 0.0 if using.registry.repeatable(call["name"]) else FINISHING_SECONDS)
        failpoint("after_tool")
        if result.pending is not None:
            return result.pending
        await commit(state, using.journal, _completed(state, call, result, time.monotonic() - begun, price))
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
