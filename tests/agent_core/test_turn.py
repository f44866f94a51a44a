"""One turn: every attempt is reserved and settled, a passing failure is met with patience, and only with a little."""

from __future__ import annotations

import asyncio

import pytest

from agent_core import BudgetError, ModelError, UnknownPriceError
from agent_core.defaults import MemoryJournal, NoEvents
from agent_core.ports import Draft, Request
from agent_core.pricing import PUBLISHED
from agent_core.state import State
from agent_core.testing import ScriptedModel, says
from agent_core.turn import Backoff, Turn, take_turn
from agent_core.types import Deferred, Entry, Json, ModelCompleted, ModelFailed, ModelStarted, usd
from tests.agent_core.harness import AT_ONCE, MODEL, TASK, make_agent

LONG: list[Json] = [{"type": "text", "text": "x" * 300}]
USED: Json = {"input_tokens": 1000, "output_tokens": 7}


def make_turn(
    model: ScriptedModel,
    journal: MemoryJournal,
    *,
    limit: int | None = None,
    backoff: Backoff = AT_ONCE,
    name: str = MODEL,
) -> Turn:
    return Turn(make_agent(model=name), model, journal, NoEvents(), [], 100, limit, backoff)


def busy(retry_after: float | None = None, code: str = "overloaded") -> ModelError:
    return ModelError(code, "come back later", retryable=True, retry_after=retry_after)


def rows(entries: list[Entry]) -> list[tuple[str, int, int | None, str | None]]:
    """Type, reserved, settled and reason of each entry."""
    return [(e.TYPE, e.reserved, getattr(e, "settled", None), getattr(e, "reason", None)) for e in entries]  # type: ignore[union-attr]


class Streaming(ScriptedModel):
    """Streams a given draft, and then ends as it is told to."""

    def __init__(
        self, content: list[Json], usage: Json | None, *, stop_reason: str | None, fault: ModelError | None
    ) -> None:
        super().__init__([])
        self.content, self.usage, self.stop_reason, self.fault = content, usage, stop_reason, fault
        self.streaming = asyncio.Event()

    async def complete(self, request: Request, draft: Draft) -> None:
        draft.started = True
        draft.content, draft.usage, draft.stop_reason = self.content, self.usage, self.stop_reason
        self.streaming.set()
        if self.fault is not None:
            raise self.fault
        if self.stop_reason is None:
            await asyncio.Event().wait()


async def test_a_reply_is_reserved_settled_and_recorded() -> None:
    state, journal = State([TASK]), MemoryJournal()
    reply = await take_turn(state, make_turn(ScriptedModel([says("hi")]), journal))
    bound = PUBLISHED.worst_case(MODEL, State([TASK]).size + 100, 4096)
    assert rows(journal.entries) == [
        ("model.started", bound, None, None),
        ("model.completed", bound, 400, "settled"),
    ]
    assert journal.entries[1] is reply
    assert isinstance(reply, ModelCompleted)
    assert reply.price_version.startswith("genai-prices/")
    assert (state.step, state.usage.cost, state.messages[-1]["content"]) == (1, 400, [{"type": "text", "text": "hi"}])


async def test_a_passing_failure_is_tried_again_and_each_attempt_is_a_row() -> None:
    state, journal = State([TASK]), MemoryJournal()
    model = ScriptedModel([busy(), busy(), says("hi")])
    reply = await take_turn(state, make_turn(model, journal))
    assert isinstance(reply, ModelCompleted)
    assert len(model.requests) == 3
    bound = reply.reserved
    assert rows(journal.entries) == [
        ("model.started", bound, None, None),
        ("model.failed", bound, 0, "released"),
        ("model.started", bound, None, None),
        ("model.failed", bound, 0, "released"),
        ("model.started", bound, None, None),
        ("model.completed", bound, 400, "settled"),
    ]
    ids = [e.call_id for e in journal.entries]
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == 3
    assert {e.step for e in journal.entries} == {1}
    assert state.usage.model_calls == 3


async def test_after_the_last_attempt_the_turn_is_deferred() -> None:
    model = ScriptedModel([busy(), busy(code="rate_limited"), busy(), says("too late")])
    outcome = await take_turn(State([TASK]), make_turn(model, MemoryJournal()))
    assert outcome == Deferred(5.0, "overloaded", "come back later")
    assert len(model.requests) == 3


async def test_a_long_retry_after_is_left_to_the_queue_at_once() -> None:
    model = ScriptedModel([busy(3600.0, "rate_limited"), says("too late")])
    outcome = await take_turn(State([TASK]), make_turn(model, MemoryJournal(), backoff=Backoff()))
    assert isinstance(outcome, Deferred)
    assert 3600 <= outcome.delay < 3601
    assert outcome.code == "rate_limited"
    assert len(model.requests) == 1


async def test_a_short_retry_after_is_waited_for() -> None:
    model = ScriptedModel([busy(0.01, "rate_limited"), says("hi")])
    assert isinstance(await take_turn(State([TASK]), make_turn(model, MemoryJournal())), ModelCompleted)
    assert len(model.requests) == 2


def test_waits_grow_with_the_attempts_on_top_of_the_servers_own() -> None:
    backoff = Backoff(base=0.5)
    for attempt, most in [(1, 0.5), (2, 1.0), (3, 2.0)]:
        waits = [backoff.wait(attempt, None) for _ in range(200)]
        assert min(waits) >= 0
        assert most / 2 < max(waits) <= most
        assert min(backoff.wait(attempt, 1.0) for _ in range(200)) >= 1.0
    assert backoff.wait(1, 1.0) <= backoff.longest < backoff.wait(1, 3600)


async def test_what_is_no_passing_failure_is_raised_and_settled() -> None:
    state, journal = State([TASK]), MemoryJournal()
    fault = ModelError("invalid_request", "no such parameter", retryable=False)
    model = ScriptedModel([fault, says("too late")])
    with pytest.raises(ModelError) as caught:
        await take_turn(state, make_turn(model, journal))
    assert caught.value is fault
    assert [row[::2] for row in rows(journal.entries)] == [("model.started", None), ("model.failed", 0)]
    assert isinstance(journal.entries[1], ModelFailed)
    assert (journal.entries[1].code, journal.entries[1].message) == ("invalid_request", "no such parameter")


async def test_a_model_without_a_price_is_refused_before_any_call() -> None:
    journal, model = MemoryJournal(), ScriptedModel([says("free of charge")])
    with pytest.raises(UnknownPriceError, match="nobody-1"):
        await take_turn(State([TASK]), make_turn(model, journal, name="nobody-1"))
    assert (model.requests, journal.entries) == ([], [])


async def test_the_jobs_own_limit_is_held_before_the_call() -> None:
    state, journal, model = State([TASK]), MemoryJournal(), ScriptedModel([says("hi")])
    bound = PUBLISHED.worst_case(MODEL, state.size + 100, 4096)
    state.usage.cost = 1
    with pytest.raises(BudgetError, match=f"{usd(bound - 1)} of the job's {usd(bound)} USD are left") as caught:
        await take_turn(state, make_turn(model, journal, limit=bound))
    assert caught.value.scope == "job"
    assert (model.requests, journal.entries) == ([], [])
    state.usage.cost = 0
    assert isinstance(await take_turn(state, make_turn(model, journal, limit=bound)), ModelCompleted)


async def test_the_jobs_own_limit_is_held_at_each_attempt() -> None:
    """An attempt that broke off has cost something, so the next one may not fit any more."""
    state, journal = State([TASK]), MemoryJournal()
    cut = ModelError("early_end", "cut", retryable=True)
    model = Streaming([{"type": "text", "text": "abc"}], {"input_tokens": 100}, stop_reason=None, fault=cut)
    bound = PUBLISHED.worst_case(MODEL, state.size + 100, 4096)
    with pytest.raises(BudgetError):
        await take_turn(state, make_turn(model, journal, limit=bound))
    assert [row[2] for row in rows(journal.entries)] == [None, 200 + 10]


class Refusing(MemoryJournal):
    async def record(self, *entries: Entry) -> None:
        raise BudgetError("user:u1", "u1 has used up its budget")


async def test_a_scope_that_refuses_the_reservation_prevents_the_call() -> None:
    state, model = State([TASK]), ScriptedModel([says("hi")])
    with pytest.raises(BudgetError, match="u1 has used up"):
        await take_turn(state, make_turn(model, Refusing()))
    assert model.requests == []
    assert state.usage.model_calls == 0


@pytest.mark.parametrize(
    ("content", "usage", "stop_reason", "settled", "reason", "recorded"),
    [
        # 1,000 in at $2 and 300 characters, 100 tokens, out at $10 a million
        (LONG, {"input_tokens": 1000, "output_tokens": 1}, None, 3_000, "cut_stream", {**USED, "output_tokens": 100}),
        ([], None, None, None, "worst_case", None),
        ([], {"input_tokens": "many"}, None, None, "worst_case", None),
        # the reply was whole, its tool call was not JSON: its own usage counts
        (LONG, USED, "tool_use", 2_070, "settled", USED),
    ],
)
async def test_what_a_failed_attempt_costs(
    content: list[Json],
    usage: Json | None,
    stop_reason: str | None,
    settled: int | None,
    reason: str,
    recorded: Json | None,
) -> None:
    fault = ModelError("broken", "broken", retryable=False)
    model = Streaming(content, usage, stop_reason=stop_reason, fault=fault)
    state, journal = State([TASK]), MemoryJournal()
    with pytest.raises(ModelError, match="broken"):
        await take_turn(state, make_turn(model, journal))
    started, failed = journal.entries
    assert isinstance(started, ModelStarted)
    assert isinstance(failed, ModelFailed)
    assert failed.settled == (started.reserved if settled is None else settled)
    assert (failed.reason, failed.usage) == (reason, recorded)
    assert state.usage.cost == failed.settled
    assert state.messages == [TASK]


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": None, "output_tokens": 3}])
async def test_a_whole_reply_without_a_usage_costs_its_worst_case(usage: Json | None) -> None:
    model = Streaming([{"type": "text", "text": "hi"}], usage, stop_reason="end_turn", fault=None)
    reply = await take_turn(State([TASK]), make_turn(model, MemoryJournal()))
    assert isinstance(reply, ModelCompleted)
    assert (reply.settled, reply.reason, reply.usage) == (reply.reserved, "worst_case", None)


async def test_a_cancelled_call_is_settled_by_what_it_streamed() -> None:
    state, journal = State([TASK]), MemoryJournal()
    model = Streaming([{"type": "text", "text": "x" * 300}], {"input_tokens": 1000}, stop_reason=None, fault=None)
    task = asyncio.create_task(take_turn(state, make_turn(model, journal)))
    await model.streaming.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    failed = journal.entries[-1]
    assert isinstance(failed, ModelFailed)
    assert (failed.code, failed.settled, failed.reason) == ("cancelled", 3_000, "cut_stream")
    assert len(journal.entries) == 2


class Gate(MemoryJournal):
    """Holds the entries of one type until they are allowed."""

    def __init__(self, held: type[Entry]) -> None:
        super().__init__()
        self.held = held
        self.reached, self.allowed = asyncio.Event(), asyncio.Event()

    async def record(self, *entries: Entry) -> None:
        if isinstance(entries[0], self.held):
            self.reached.set()
            await self.allowed.wait()
        await super().record(*entries)


async def test_a_cancellation_before_the_call_releases_its_reservation() -> None:
    state, journal, model = State([TASK]), Gate(ModelStarted), ScriptedModel([says("too late")])
    task = asyncio.create_task(take_turn(state, make_turn(model, journal)))
    await journal.reached.wait()
    task.cancel()
    journal.allowed.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.requests == []
    assert [row[2:] for row in rows(journal.entries)] == [(None, None), (0, "released")]


async def test_a_cancellation_while_the_reply_is_recorded_keeps_the_reply() -> None:
    state, journal = State([TASK]), Gate(ModelCompleted)
    task = asyncio.create_task(take_turn(state, make_turn(ScriptedModel([says("hi")]), journal)))
    await journal.reached.wait()
    task.cancel()
    journal.allowed.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(journal.entries[-1], ModelCompleted)
    assert state.last_text() == "hi"
