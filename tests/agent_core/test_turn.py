"""One turn: every attempt is reserved and settled, a passing failure is met with patience, and only with a little."""

from __future__ import annotations

import asyncio

import pytest

from agent_core import Budget, BudgetError, ModelError, UnknownPriceError
from agent_core.defaults import MemoryJournal, NoEvents
from agent_core.entries import Entry, ModelCompleted, ModelFailed, ModelStarted
from agent_core.errors import KilledError
from agent_core.outcomes import Deferred, Refusal
from agent_core.ports import Draft, Request
from agent_core.pricing import OWN_TOKENS, PUBLISHED
from agent_core.state import State
from agent_core.testing import ScriptedModel, says
from agent_core.turn import CONCLUDE, Backoff, Turn, take_turn
from agent_core.types import Json, usd
from tests.agent_core.harness import AT_ONCE, MODEL, TASK, make_agent

LONG: list[Json] = [{"type": "text", "text": "x" * 300}]
USED: Json = {"input_tokens": 1000, "output_tokens": 7}
FIRST_INPUT = State([TASK]).size + 100 + len(CONCLUDE)
"""The bound of the first call's input: its bytes, and those of the note that a last call carries."""
FIRST = PUBLISHED.worst_case(MODEL, FIRST_INPUT, 4096)


def make_turn(model: ScriptedModel, journal: MemoryJournal, *, backoff: Backoff = AT_ONCE, name: str = MODEL) -> Turn:
    return Turn(make_agent(model=name), {"": model}, journal, NoEvents(), [], 100, backoff)


def busy(retry_after: float | None = None, code: str = "overloaded", *, billed: bool = False) -> ModelError:
    return ModelError(code, "come back later", retryable=True, retry_after=retry_after, billed=billed)


def rows(entries: list[Entry]) -> list[tuple[str, int, int | None, str | None]]:
    """Type, reserved, settled and reason of each entry."""
    return [(e.TYPE, e.reserved, getattr(e, "settled", None), getattr(e, "reason", None)) for e in entries]  # type: ignore[union-attr]


async def cancelled(task: asyncio.Task[object], at: asyncio.Event, then: asyncio.Event | None = None) -> None:
    """Cancels a task at a point, lets it go on from there, and expects it to be cancelled."""
    await at.wait()
    task.cancel()
    if then is not None:
        then.set()
    with pytest.raises(asyncio.CancelledError):
        await task


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
    assert rows(journal.entries) == [("model.started", FIRST, None, None), ("model.completed", FIRST, 400, "settled")]
    started, completed = journal.entries
    assert completed is reply
    assert isinstance(started, ModelStarted)
    assert (started.tokens, started.max_tokens) == (FIRST_INPUT + OWN_TOKENS + 4096, 4096)
    assert (started.step, started.role, started.final) == (1, "executor", False)
    assert started.price_version.startswith("genai-prices/")
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
    made = [entry for entry in journal.entries if isinstance(entry, ModelStarted | ModelFailed | ModelCompleted)]
    ids = [entry.call_id for entry in made]
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == 3
    assert {entry.step for entry in made} == {1}
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
    fault = ModelError("invalid_request", "no such parameter", retryable=False, billed=False)
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


async def test_a_limit_is_held_before_the_call() -> None:
    model, journal = ScriptedModel([says("hi")]), MemoryJournal(Budget(usd="0.000001"))
    with pytest.raises(BudgetError, match=r"0\.000001 USD of 0\.000001 USD are left") as caught:
        await take_turn(State([TASK]), make_turn(model, journal))
    assert caught.value.refusal == Refusal("job", "total", "stop", "usd", 1, 1, 1, None)
    assert (model.requests, journal.entries) == ([], [])


async def test_a_limit_that_the_worst_case_just_fits_into_has_room() -> None:
    for budget in (Budget(usd=usd(FIRST)), Budget(usd=None, tokens=FIRST_INPUT + OWN_TOKENS + 4096)):
        journal = MemoryJournal(budget)
        assert isinstance(
            await take_turn(State([TASK]), make_turn(ScriptedModel([says("hi")]), journal)), ModelCompleted
        )
        assert rows(journal.entries)[0] == ("model.started", FIRST, None, None)


async def test_a_limit_is_held_at_each_attempt() -> None:
    """An attempt that broke off has cost something, so the next one has to do with what is left."""
    journal = MemoryJournal(Budget(usd=usd(FIRST)))
    cut = ModelError("early_end", "cut", retryable=True)
    model = Streaming([{"type": "text", "text": "abc"}], {"input_tokens": 100}, stop_reason=None, fault=cut)
    await take_turn(State([TASK]), make_turn(model, journal))
    reserved = [e.reserved for e in journal.entries if isinstance(e, ModelStarted)]
    assert reserved[0] == FIRST
    assert [FIRST - 210 * n - worst < 11 for n, worst in enumerate(reserved)] == [True] * 3, (
        "as much as fits, at 11 a token"
    )
    assert all(worst <= FIRST - 210 * n for n, worst in enumerate(reserved))


class Refusing(MemoryJournal):
    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.fault = fault

    async def record(self, *entries: Entry) -> None:
        raise self.fault


FULL = BudgetError(Refusal("user:u1", "day", "stop", "usd", 500, 0, 0, None))


@pytest.mark.parametrize("fault", [FULL, KilledError("tenant:acme")])
async def test_a_reservation_that_is_refused_prevents_the_call(fault: Exception) -> None:
    state, model = State([TASK]), ScriptedModel([says("hi")])
    with pytest.raises(type(fault)) as caught:
        await take_turn(state, make_turn(model, Refusing(fault)))
    assert caught.value is fault
    assert model.requests == []
    assert state == State([TASK])


@pytest.mark.parametrize(
    ("content", "usage", "stop_reason", "settled", "reason", "recorded"),
    [
        # 1,000 in at $2 and 300 characters, 100 tokens, out at $10 a million
        (LONG, {"input_tokens": 1000, "output_tokens": 1}, None, 3_000, "cut_stream", {**USED, "output_tokens": 100}),
        ([], None, None, None, "worst_case", None),
        ([], {"input_tokens": "many"}, None, None, "worst_case", None),
        ([], ["much"], None, None, "worst_case", None),
        # 300,000 characters would be 100,000 tokens, and no reply has more than it may have
        ([{"type": "text", "text": "x" * 300_000}], USED, None, 42_960, "cut_stream", {**USED, "output_tokens": 4096}),
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


@pytest.mark.parametrize(("billed", "settled", "reason"), [(False, 0, "released"), (True, FIRST, "worst_case")])
async def test_an_attempt_without_a_first_byte_costs_nothing_only_where_the_provider_refused_it(
    billed: bool, settled: int, reason: str
) -> None:
    state, journal = State([TASK]), MemoryJournal()
    fault = ModelError("connection", "gone", retryable=False, billed=billed)
    with pytest.raises(ModelError, match="gone"):
        await take_turn(state, make_turn(ScriptedModel([fault]), journal))
    assert rows(journal.entries)[-1] == ("model.failed", FIRST, settled, reason)
    assert state.usage.cost == settled


async def test_a_refusal_after_the_first_byte_costs_what_streamed() -> None:
    fault = ModelError("overloaded", "broke off", retryable=False, billed=False)
    model = Streaming(LONG, {"input_tokens": 1000}, stop_reason=None, fault=fault)
    journal = MemoryJournal()
    with pytest.raises(ModelError, match="broke off"):
        await take_turn(State([TASK]), make_turn(model, journal))
    assert rows(journal.entries)[-1][2:] == (3_000, "cut_stream")


async def test_a_cancelled_call_is_settled_by_what_it_streamed() -> None:
    state, journal = State([TASK]), MemoryJournal()
    model = Streaming([{"type": "text", "text": "x" * 300}], {"input_tokens": 1000}, stop_reason=None, fault=None)
    await cancelled(asyncio.create_task(take_turn(state, make_turn(model, journal))), model.streaming)
    failed = journal.entries[-1]
    assert isinstance(failed, ModelFailed)
    assert (failed.code, failed.settled, failed.reason) == ("cancelled", 3_000, "cut_stream")
    assert len(journal.entries) == 2


async def test_a_call_that_is_cancelled_before_its_first_byte_is_settled_at_its_worst_case() -> None:
    """It has been sent, and nobody knows what the provider made of it."""

    class Silent(ScriptedModel):
        sent = asyncio.Event()

        async def complete(self, request: Request, draft: Draft) -> None:
            self.sent.set()
            await asyncio.Event().wait()

    journal, model = MemoryJournal(), Silent([])
    await cancelled(asyncio.create_task(take_turn(State([TASK]), make_turn(model, journal))), model.sent)
    assert rows(journal.entries)[-1] == ("model.failed", FIRST, FIRST, "worst_case")


class Gate(MemoryJournal):
    """Holds the entries of one type until they are allowed."""

    def __init__(self, held: type[Entry], budget: Budget | None = None) -> None:
        super().__init__(budget)
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
    await cancelled(task, journal.reached, journal.allowed)
    assert model.requests == []
    assert rows(journal.entries) == [("model.started", FIRST, None, None), ("model.failed", FIRST, 0, "released")]
    assert isinstance(journal.entries[1], ModelFailed)
    assert journal.entries[1].code == "cancelled"


async def test_a_cancellation_while_a_reservation_is_refused_cancels() -> None:
    """The refusal must not swallow it, nor may a smaller call be made instead."""
    journal, model = Gate(ModelStarted, Budget(usd=usd(FIRST - 1))), ScriptedModel([says("too late")])
    task = asyncio.create_task(take_turn(State([TASK]), make_turn(model, journal)))
    await cancelled(task, journal.reached, journal.allowed)
    assert (model.requests, journal.entries) == ([], [])


async def test_a_cancellation_while_the_reply_is_recorded_keeps_the_reply() -> None:
    state, journal = State([TASK]), Gate(ModelCompleted)
    task = asyncio.create_task(take_turn(state, make_turn(ScriptedModel([says("hi")]), journal)))
    await cancelled(task, journal.reached, journal.allowed)
    assert isinstance(journal.entries[-1], ModelCompleted)
    assert state.last_text() == "hi"
