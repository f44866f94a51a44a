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
from agent_core.pricing import estimate_output_tokens
from agent_core.state import State, commit
from agent_core.types import Deferred, Json, ModelCompleted, ModelFailed, ModelStarted, usd


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

    `tools` and `overhead` (bytes of a request around its messages) never change during a run; `limit` is the job's own
    in micro-dollars, and None when it has none.
    """

    agent: Agent
    model: Model
    journal: Journal
    events: Events
    tools: list[Json]
    overhead: int
    limit: int | None = None
    backoff: Backoff = field(default_factory=Backoff)


async def take_turn(state: State, turn: Turn) -> ModelCompleted | Deferred:
    """The model's next reply, recorded; or Deferred when it is out of capacity for long.

    Raises BudgetError when an attempt does not fit into a limit, ModelError when a failure is not a passing one, and
    what `Journal.record` raises.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return await _attempt(state, turn)
        except ModelError as exc:
            if not exc.retryable:
                raise
            failure = exc
        wait = turn.backoff.wait(attempt, failure.retry_after)
        if wait > turn.backoff.longest or attempt >= turn.backoff.attempts:
            return Deferred(max(wait, turn.backoff.deferral), failure.code, str(failure))
        await asyncio.sleep(wait)


async def _attempt(state: State, turn: Turn) -> ModelCompleted:
    agent, started = turn.agent, _reserve(state, turn)
    draft = Draft(on_text=lambda delta: turn.events.text(started.step, delta))
    request = Request(agent.model, agent.instructions, state.messages, turn.tools, agent.max_tokens, agent.extra)
    begun = time.monotonic()
    try:
        failpoint("before_reserve")
        await commit(state, turn.journal, started)
        failpoint("after_reserve")
        await turn.model.complete(request, draft)
    except (ModelError, asyncio.CancelledError) as exc:
        await commit(state, turn.journal, _failed(turn.model, started, draft, exc, time.monotonic() - begun))
        raise
    completed = _completed(turn.model, started, draft, time.monotonic() - begun)
    failpoint("before_settle")
    await commit(state, turn.journal, completed)
    failpoint("after_settle")
    return completed


def _reserve(state: State, turn: Turn) -> ModelStarted:
    """The entry that reserves a call's worst case. Raises BudgetError when the job's own limit has no room for it."""
    agent = turn.agent
    worst = turn.model.worst_case(agent.model, state.size + turn.overhead, agent.max_tokens)
    if turn.limit is not None and state.usage.cost + worst > turn.limit:
        left = usd(max(0, turn.limit - state.usage.cost))
        detail = f"the next call could cost {usd(worst)} USD; {left} of the job's {usd(turn.limit)} USD are left"
        raise BudgetError("job", detail)
    return ModelStarted(call_id=uuid.uuid4().hex, step=state.step + 1, model=agent.model, reserved=worst)


def _completed(model: Model, started: ModelStarted, draft: Draft, seconds: float) -> ModelCompleted:
    usage, settled, reason = _settle(model, started, draft)
    return ModelCompleted(
        call_id=started.call_id,
        step=started.step,
        model=started.model,
        content=draft.content,
        stop_reason=draft.stop_reason or "unknown",
        usage=usage,
        price_version=model.price_version,
        reserved=started.reserved,
        settled=settled,
        reason=reason,
        seconds=round(seconds, 4),
    )


def _failed(
    model: Model, started: ModelStarted, draft: Draft, fault: ModelError | asyncio.CancelledError, seconds: float
) -> ModelFailed:
    usage, settled, reason = _settle(model, started, draft)
    code, message = "cancelled", "the call was cancelled"
    if isinstance(fault, ModelError):
        code, message = fault.code, str(fault)[:500]
    return ModelFailed(
        call_id=started.call_id,
        step=started.step,
        model=started.model,
        code=code,
        message=message,
        usage=usage,
        price_version=model.price_version,
        reserved=started.reserved,
        settled=settled,
        reason=reason,
        seconds=round(seconds, 4),
    )


def _settle(model: Model, started: ModelStarted, draft: Draft) -> tuple[Json | None, int, str]:
    """What an attempt used, what it costs and why.

    Nothing before the first byte, what streamed when it was cut, the worst case when no usage can be read, else its
    usage.
    """
    if not draft.started:
        return None, 0, "released"
    usage, reason = draft.usage, "settled"
    if usage is not None and draft.stop_reason is None:
        # The first event only has a placeholder for the output.
        usage, reason = {**usage, "output_tokens": estimate_output_tokens(draft.content)}, "cut_stream"
    try:
        if usage is not None:
            return usage, model.price(started.model, usage), reason
    except ValueError:
        usage = None
    return usage, started.reserved, "worst_case"
