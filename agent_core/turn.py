"""One model turn: reserve, call, settle, record, and again a few times when the failure is a passing one."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from dataclasses import dataclass, field

from agent_core.agent import Agent
from agent_core.errors import BudgetError, ModelError
from agent_core.failpoints import failpoint
from agent_core.ports import Draft, Events, Journal, Model, Request
from agent_core.pricing import OWN_TOKENS, estimate_output_tokens
from agent_core.state import State, commit, with_note
from agent_core.types import (
    Batched,
    Deferred,
    Json,
    ModelCompleted,
    ModelFailed,
    ModelStarted,
    ModelSubmitted,
    Refusal,
)

LEAST_OUTPUT = 256
"""Tokens; a call that may write less than this is not worth its input."""
BUDGET_BUSY = "budget_busy"
"""The code of a turn that was put off because reservations of other calls fill a limit."""
CONCLUDE = (
    "[The budget of this job leaves room for one more reply of at most {tokens} tokens and for no tool call. "
    "Conclude now: give the best answer you can from what you have, and say what is missing.]"
)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How a passing failure is met. Times are in seconds.

    Waits grow exponentially with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015), on top of
    the server's retry-after. A worker waits `longest` at most: what would take longer goes back to the queue for at
    least `deferral`, and so does a turn whose `attempts` are spent.
    """

    attempts: int = 3
    base: float = 0.5
    longest: float = 20.0
    deferral: float = 5.0

    def wait(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after the given attempt, the first being 1."""
        return (retry_after or 0.0) + random.uniform(0, self.base * 2 ** (attempt - 1))  # noqa: S311


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn needs besides the state.

    `tools` and `overhead` (bytes of a request around its messages) never change during a run.
    """

    agent: Agent
    model: Model
    journal: Journal
    events: Events
    tools: list[Json]
    overhead: int
    backoff: Backoff = field(default_factory=Backoff)


async def take_turn(state: State, turn: Turn) -> ModelCompleted | Batched | Deferred:
    """The model's next reply, recorded; Batched when a batch is to give it; Deferred when the model is out of capacity
    for long, and when a batch gave none.

    Raises BudgetError when no attempt fits into the limits, ModelError when a failure is not a passing one, and what
    else `Journal.record` raises.
    """
    attempt = 0
    while True:
        attempt += 1
        batched = state.submitted is not None
        try:
            return await _attempt(state, turn)
        except BudgetError as exc:
            if not exc.refusal.busy:
                raise
            failure = ModelError(BUDGET_BUSY, str(exc), retryable=True)
        except ModelError as exc:
            if not exc.retryable:
                raise
            failure = exc
        wait = turn.backoff.wait(attempt, failure.retry_after)
        if batched or wait > turn.backoff.longest or attempt >= turn.backoff.attempts:
            return Deferred(max(wait, turn.backoff.deferral), failure.code, str(failure))
        await asyncio.sleep(wait)


async def _attempt(state: State, turn: Turn) -> ModelCompleted | Batched:
    started = state.submitted or await _reserve(state, turn)
    draft = Draft(on_text=lambda delta: turn.events.text(started.step, delta))
    begun = time.monotonic()
    try:
        failpoint("after_reserve")
        await turn.model.complete(_request(state, turn, started), draft)
    except (ModelError, asyncio.CancelledError) as exc:
        if draft.batch_id is not None and isinstance(exc, asyncio.CancelledError):
            await _batched(state, turn, started, draft.batch_id)  # whoever has the job next asks for the reply
            raise
        billed = exc.billed if isinstance(exc, ModelError) else not draft.unsent
        await commit(state, turn.journal, _failed(turn, started, draft, exc, time.monotonic() - begun, billed))
        raise
    if draft.batch_id is not None and draft.stop_reason is None:
        return await _batched(state, turn, started, draft.batch_id)
    completed = _completed(turn, started, draft, time.monotonic() - begun)
    failpoint("before_settle")
    await commit(state, turn.journal, completed)
    failpoint("after_settle")
    return completed


async def _batched(state: State, turn: Turn, call: ModelStarted, batch_id: str) -> Batched:
    """Records which batch has the call, unless that is known."""
    asked = state.batch_id is not None
    if not asked:
        failpoint("after_submit")
        await commit(state, turn.journal, ModelSubmitted(call.call_id, call.step, batch_id))
    return Batched(batch_id, asked)


async def _reserve(state: State, turn: Turn) -> ModelStarted:
    """Reserves the worst case of a call, or of a smaller and last one when a limit that stops has no room for more.

    Raises BudgetError when that has none either.
    """
    failpoint("before_reserve")
    try:
        return await _begin(state, turn, _call(state, turn, turn.agent.max_tokens))
    except BudgetError as exc:
        fitting = 0 if exc.refusal.busy else _fitting(state, turn, exc.refusal)
        if exc.refusal.at_limit != "stop" or fitting < LEAST_OUTPUT:
            raise
    return await _begin(state, turn, _call(state, turn, fitting, final=True))


async def _begin(state: State, turn: Turn, call: ModelStarted) -> ModelStarted:
    try:
        await commit(state, turn.journal, call)
    except asyncio.CancelledError as exc:
        if state.call is call:  # reserved, and nothing was sent
            await commit(state, turn.journal, _failed(turn, call, Draft(), exc, 0.0, billed=False))
        raise
    return call


def _call(state: State, turn: Turn, max_tokens: int, *, final: bool = False) -> ModelStarted:
    """The entry that reserves a call."""
    agent, model = turn.agent, turn.model
    tokens = _input_bound(state, turn)
    return ModelStarted(
        call_id=uuid.uuid4().hex,
        step=state.step + 1,
        model=agent.model,
        reserved=model.worst_case(agent.model, tokens, max_tokens, agent.parameters),
        tokens=tokens + OWN_TOKENS + max_tokens,
        max_tokens=max_tokens,
        price_version=model.price_version,
        final=final,
    )


def _input_bound(state: State, turn: Turn) -> int:
    note = len(CONCLUDE)  # always counted, so that a smaller call is no dearer than its bound
    return state.input_bound(turn.agent.model, turn.overhead) + note


def _fitting(state: State, turn: Turn, refusal: Refusal) -> int:
    """The most output tokens for which a call fits into every limit."""
    agent, tokens, most = turn.agent, _input_bound(state, turn), turn.agent.max_tokens
    if refusal.room_micros is not None:
        most = min(most, turn.model.affordable(agent.model, tokens, refusal.room_micros, agent.parameters))
    if refusal.room_tokens is not None:
        most = min(most, refusal.room_tokens - tokens - OWN_TOKENS)
    return most


def _request(state: State, turn: Turn, call: ModelStarted) -> Request:
    agent, messages = turn.agent, state.messages
    extra = agent.parameters
    if call.final:
        # a thinking budget may be more than what is left to write
        extra = {name: value for name, value in extra.items() if name != "thinking"}
        if turn.tools:
            extra["tool_choice"] = {"type": "none"}
        messages = with_note(messages, CONCLUDE.format(tokens=call.max_tokens))
    named = (call.call_id, state.batch_id)
    return Request(agent.model, agent.instructions, messages, turn.tools, call.max_tokens, extra, *named)


def _completed(turn: Turn, started: ModelStarted, draft: Draft, seconds: float) -> ModelCompleted:
    usage, settled, reason = _settle(turn, started, draft, billed=True)
    return ModelCompleted(
        call_id=started.call_id,
        step=started.step,
        model=started.model,
        content=draft.content,
        stop_reason=draft.stop_reason or "unknown",
        usage=usage,
        price_version=started.price_version,
        reserved=started.reserved,
        settled=settled,
        reason=reason,
        seconds=round(seconds, 4),
        role=started.role,
    )


def _failed(
    turn: Turn,
    started: ModelStarted,
    draft: Draft,
    fault: ModelError | asyncio.CancelledError,
    seconds: float,
    billed: bool,
) -> ModelFailed:
    code, message = "cancelled", "the call was cancelled"
    if isinstance(fault, ModelError):
        code, message = fault.code, str(fault)[:500]
    usage, settled, reason = _settle(turn, started, draft, billed)
    return ModelFailed(
        call_id=started.call_id,
        step=started.step,
        model=started.model,
        code=code,
        message=message,
        usage=usage,
        price_version=started.price_version,
        reserved=started.reserved,
        settled=settled,
        reason=reason,
        seconds=round(seconds, 4),
        role=started.role,
    )


def _settle(turn: Turn, started: ModelStarted, draft: Draft, billed: bool) -> tuple[Json | None, int, str]:
    """What an attempt used, what it costs and why.

    Nothing when the provider refused it, what streamed when it was cut, the worst case when no usage was reported, or
    none that can be read, else its usage.
    """
    if not draft.started and not billed:
        return None, 0, "released"
    usage, reason = draft.usage, "settled"
    if isinstance(usage, dict) and draft.stop_reason is None:
        # The first event only has a placeholder for the output.
        streamed = min(started.max_tokens, estimate_output_tokens(draft.content))
        usage, reason = {**usage, "output_tokens": streamed}, "cut_stream"
    try:
        if usage is not None:
            return usage, turn.model.price(started.model, usage, turn.agent.parameters), reason
    except ValueError:
        usage = None
    return usage, started.reserved, "worst_case"
