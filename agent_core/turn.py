"""One model turn: reserve, call, settle, record, and again a few times when the failure is a passing one."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_core.agent import Agent
from agent_core.defaults import AlwaysClosed
from agent_core.entries import ModelCompleted, ModelFailed, ModelStarted, ModelSubmitted
from agent_core.errors import BudgetError, ModelError
from agent_core.failpoints import failpoint
from agent_core.messages import with_note
from agent_core.outcomes import Batched, Deferred, Refusal
from agent_core.ports import Breakers, Draft, Events, Journal, Model, Request
from agent_core.pricing import OWN_TOKENS, estimate_output_tokens
from agent_core.results import DATA_NOTE
from agent_core.server_tools import server_tools_bound
from agent_core.state import State, commit
from agent_core.targets import Target
from agent_core.types import Json, Role

LEAST_OUTPUT = 256
"""Tokens; a call that may write less than this is not worth its input."""
BUDGET_BUSY = "budget_busy"
"""The code of a turn that was put off because reservations of other calls fill a limit."""
ELSEWHERE = frozenset({"authentication", "permission", "not_found", "unknown_server"})
"""Refusals that say nothing of the call, but that this target will not take it."""
CONCLUDE = (
    "[The limits of this job leave room for one more reply of at most {tokens} tokens and for no tool call. "
    "Conclude now: give the best answer you can from what you have, and say what is missing.]"
)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How a passing failure is met. Times are in seconds.

    Waits grow exponentially with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015), on top of
    the server's retry-after. A worker waits `longest` at most: what would take longer goes to the next target or back
    to the queue for at least `deferral`, and so does a turn whose `attempts` at each target are spent.
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

    `models` has the model of each server by its name, the worker's own under "". `tools` and `overhead` (bytes of a
    request around its messages) never change during a run. `schema` is what an answer has to be outside any phase.
    """

    agent: Agent
    models: Mapping[str, Model]
    journal: Journal
    events: Events
    tools: list[Json]
    overhead: int
    backoff: Backoff = field(default_factory=Backoff)
    breakers: Breakers = field(default_factory=AlwaysClosed)
    schema: Json | None = None

    def model(self, target: Target) -> Model:
        """Raises ModelError when the worker does not know the server."""
        found = self.models.get(target.server)
        if found is None:
            known = ", ".join(sorted(filter(None, self.models))) or "none"
            detail = f"this worker knows no model server {target.server!r}; those in NIGHTSHIFT_MODEL_SERVERS: {known}"
            raise ModelError("unknown_server", detail, retryable=False, billed=False)
        return found


@dataclass(frozen=True, slots=True)
class Ask:
    """What a model is asked: the conversation, or for a summary of it. `note` is said with it and not kept."""

    role: Role
    step: int
    messages: list[Json]
    note: str = ""
    tools: bool = True
    expects: Json | None = None
    last: bool = False
    """It is to be the last reply of the run."""
    may_shrink: bool = True
    """A smaller reply than the agent's `max_tokens` is of use, when a limit has no room for more."""


def instructions(agent: Agent) -> str:
    """The system prompt: the agent's own, and with tools how to take what they bring."""
    return f"{agent.instructions}\n\n{DATA_NOTE}" if agent.tools or agent.agents else agent.instructions


async def take_turn(state: State, turn: Turn, *, last: bool = False) -> ModelCompleted | Batched | Deferred:
    """The model's next reply to the conversation; `last` tells it to conclude. See `ask`."""
    expects = state.expects if state.phase else turn.schema
    return await ask(
        state, turn, Ask(state.role, state.step + 1, state.messages, tools=state.tools, expects=expects, last=last)
    )


async def ask(state: State, turn: Turn, what: Ask) -> ModelCompleted | Batched | Deferred:
    """A reply, recorded; Batched when a batch is to give it; Deferred when no target has capacity for long, and when a
    batch gave none. Targets are asked in the order in which the agent names them.

    Raises BudgetError when no attempt fits into the limits, ModelError when a failure is not a passing one, and what
    else `Journal.record` raises.
    """
    targets = turn.agent.targets(what.role)
    put_off: Deferred | None = None
    for number, target in enumerate(targets):
        more = number < len(targets) - 1
        try:
            found = await _ask_target(state, turn, what, target, chained=len(targets) > 1)
        except ModelError as exc:
            if exc.code not in ELSEWHERE or not (more or put_off):
                raise
            continue
        if not isinstance(found, Deferred):
            return found
        if put_off is None or found.code != "circuit_open":
            put_off = found
    assert put_off is not None  # there is a target, and each gives a reply, is put off or raises
    return put_off


async def _ask_target(
    state: State, turn: Turn, what: Ask, target: Target, *, chained: bool
) -> ModelCompleted | Batched | Deferred:
    """One target's reply; Deferred when its attempts are spent, or its circuit breaker is open.

    A breaker is of use where there is another target to go to, and is not asked elsewhere.
    """
    attempt = 0
    while True:
        attempt += 1
        if chained and not await turn.breakers.allows(target.name):
            return Deferred(turn.backoff.deferral, "circuit_open", f"{target.name} did not answer of late")
        batched = state.submitted is not None
        try:
            reply = await _attempt(state, turn, what, target)
            if chained:
                await turn.breakers.report(target.name, ok=True)
            return reply
        except BudgetError as exc:
            if not exc.refusal.busy:
                raise
            failure = ModelError(BUDGET_BUSY, str(exc), retryable=True)
        except ModelError as exc:
            if chained:
                await turn.breakers.report(target.name, ok=False, code=exc.code)
            if not exc.retryable:
                raise
            failure = exc
        wait = turn.backoff.wait(attempt, failure.retry_after)
        if batched or wait > turn.backoff.longest or attempt >= turn.backoff.attempts:
            return Deferred(max(wait, turn.backoff.deferral), failure.code, str(failure))
        await asyncio.sleep(wait)


async def _attempt(state: State, turn: Turn, what: Ask, target: Target) -> ModelCompleted | Batched:
    started = state.submitted or await _reserve(state, turn, what, target)
    model = turn.model(Target(started.model, started.server))
    draft = Draft()
    if started.role != "summariser":
        draft.on_text = lambda said: turn.events.text(started.step, said)
    begun = time.monotonic()
    try:
        failpoint("after_reserve")
        await model.complete(_request(state, turn, what, started), draft)
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


async def _reserve(state: State, turn: Turn, what: Ask, target: Target) -> ModelStarted:
    """Reserves the worst case of a call, or of a smaller and last one when a limit that stops has no room for more.

    Raises BudgetError when that has none either.
    """
    failpoint("before_reserve")
    try:
        return await _begin(state, turn, _call(state, turn, what, target, turn.agent.max_tokens, final=what.last))
    except BudgetError as exc:
        fitting = 0 if exc.refusal.busy or not what.may_shrink else _fitting(state, turn, what, target, exc.refusal)
        if exc.refusal.at_limit != "stop" or fitting < LEAST_OUTPUT:
            raise
    return await _begin(state, turn, _call(state, turn, what, target, fitting, final=True))


async def _begin(state: State, turn: Turn, call: ModelStarted) -> ModelStarted:
    try:
        await commit(state, turn.journal, call)
    except asyncio.CancelledError as exc:
        if state.call is call:  # reserved, and nothing was sent
            await commit(state, turn.journal, _failed(turn, call, Draft(), exc, 0.0, billed=False))
        raise
    return call


def _call(state: State, turn: Turn, what: Ask, target: Target, max_tokens: int, *, final: bool) -> ModelStarted:
    """The entry that reserves a call."""
    model = turn.model(target)
    fetched, fees = server_tools_bound(turn.agent.server_tools)
    tokens = _input_bound(state, turn, what, target) + fetched
    return ModelStarted(
        call_id=uuid.uuid4().hex,
        step=what.step,
        model=target.model,
        reserved=model.worst_case(target.model, tokens, max_tokens, turn.agent.parameters) + fees,
        tokens=tokens + OWN_TOKENS + max_tokens,
        max_tokens=max_tokens,
        price_version=model.price_version,
        role=what.role,
        final=final,
        server=target.server,
        covers=len(what.messages) - state.compactable[0] if what.role == "summariser" else 0,
    )


def _input_bound(state: State, turn: Turn, what: Ask, target: Target) -> int:
    note = max(len(CONCLUDE), len(what.note))  # always counted, so that a smaller call is no dearer than its bound
    schema = len(json.dumps(what.expects)) if what.expects is not None else 0
    return state.input_bound(target.model, turn.overhead) + note + schema


def _fitting(state: State, turn: Turn, what: Ask, target: Target, refusal: Refusal) -> int:
    """The most output tokens for which a call fits into every limit."""
    agent, most = turn.agent, turn.agent.max_tokens
    fetched, fees = server_tools_bound(agent.server_tools)
    tokens = _input_bound(state, turn, what, target) + fetched
    if refusal.room_micros is not None:
        room = refusal.room_micros - fees
        affordable = turn.model(target).affordable(target.model, tokens, room, agent.parameters)
        most = min(most, affordable)
    if refusal.room_tokens is not None:
        most = min(most, refusal.room_tokens - tokens - OWN_TOKENS)
    return most


def _request(state: State, turn: Turn, what: Ask, call: ModelStarted) -> Request:
    extra, note = dict(turn.agent.parameters), what.note
    if call.final:
        extra.pop("thinking", None)  # its budget may be more than what is left to write
        note = CONCLUDE.format(tokens=call.max_tokens)
    if turn.tools and (call.final or not what.tools):
        extra["tool_choice"] = {"type": "none"}
    if what.expects is not None:
        wanted = {"format": {"type": "json_schema", "schema": what.expects}}
        extra["output_config"] = {**extra.get("output_config", {}), **wanted}
    return Request(
        call.model,
        instructions(turn.agent),
        with_note(what.messages, note) if note else what.messages,
        turn.tools,
        call.max_tokens,
        extra,
        call.call_id,
        state.batch_id,
    )


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
            price = turn.model(Target(started.model, started.server)).price
            return usage, price(started.model, usage, turn.agent.parameters), reason
    except ValueError:
        usage = None
    return usage, started.reserved, "worst_case"
