"""A turn whose call goes through a batch: it is reserved and submitted once, however often the job changes hands."""

from __future__ import annotations

import asyncio

import pytest

from agent_core import ModelError
from agent_core.defaults import MemoryJournal, NoEvents
from agent_core.entries import ModelCompleted, ModelFailed, ModelStarted, ModelSubmitted
from agent_core.loop import run
from agent_core.outcomes import Batched, Deferred
from agent_core.ports import Draft, Request
from agent_core.state import State
from agent_core.testing import DEFAULT_USAGE, ScriptedModel
from agent_core.turn import Turn, take_turn
from agent_core.types import Json
from tests.agent_core.harness import AT_ONCE, TASK, make_agent, make_ports, reread


class Batching(ScriptedModel):
    """Puts each new call into a batch; `reply` is what it has for it: text, a fault, or None while it has nothing."""

    def __init__(self, reply: str | ModelError | None = None) -> None:
        super().__init__([])
        self.reply = reply
        self.making, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def complete(self, request: Request, draft: Draft) -> None:
        self.requests.append(request)
        if request.batch_id is None:
            self.making.set()
            draft.unsent = not self.go_on.is_set()
            try:
                await self.go_on.wait()
            finally:
                draft.batch_id = f"batch_{len(self.requests)}" if self.go_on.is_set() else None
            return
        draft.batch_id = request.batch_id
        if isinstance(self.reply, ModelError):
            raise self.reply
        if self.reply is not None:
            content: list[Json] = [{"type": "text", "text": self.reply}]
            draft.started, draft.content, draft.usage, draft.stop_reason = True, content, DEFAULT_USAGE, "end_turn"


def make_turn(model: Batching, journal: MemoryJournal) -> Turn:
    return Turn(make_agent(), {"": model}, journal, NoEvents(), [], 100, AT_ONCE)


def restored(journal: MemoryJournal) -> State:
    """The state of whoever has the job next."""
    return State.restore([TASK], reread(journal.entries))


async def test_a_call_is_reserved_submitted_and_settled_once() -> None:
    model, journal = Batching(), MemoryJournal()
    turn = make_turn(model, journal)
    assert await take_turn(State([TASK]), turn) == Batched("batch_1", asked=False)
    started, submitted = journal.entries
    assert isinstance(started, ModelStarted)
    assert submitted == ModelSubmitted(started.call_id, 1, "batch_1")
    for _ in range(2):
        assert await take_turn(restored(journal), turn) == Batched("batch_1", asked=True)
    assert journal.entries == [started, submitted]

    model.reply = "done"
    state = restored(journal)
    reply = await take_turn(state, turn)
    assert isinstance(reply, ModelCompleted)
    assert journal.entries == [started, submitted, reply]
    assert (reply.call_id, reply.reserved, reply.reason) == (started.call_id, started.reserved, "settled")
    assert state.submitted is restored(journal).submitted is None
    asked = [(request.call_id, request.batch_id) for request in model.requests]
    assert asked == [(started.call_id, None)] + [(started.call_id, "batch_1")] * 3


async def test_a_run_ends_where_a_batch_has_the_call() -> None:
    model, journal = Batching(), MemoryJournal()
    agent, ports = make_agent(), make_ports(model, journal)
    assert await run(State([TASK]), agent=agent, budget=agent.budget, ports=ports) == Batched("batch_1", asked=False)


@pytest.mark.parametrize("code", ["batch_expired", "overloaded"])
async def test_a_batch_that_fails_a_call_puts_the_job_off_and_the_call_is_made_anew(code: str) -> None:
    model, journal = Batching(), MemoryJournal()
    turn = make_turn(model, journal)
    await take_turn(State([TASK]), turn)
    model.reply = ModelError(code, "not processed", retryable=True, billed=False)
    deferred = await take_turn(restored(journal), turn)
    assert isinstance(deferred, Deferred)
    assert deferred.code == code
    failed = journal.entries[-1]
    assert isinstance(failed, ModelFailed)
    assert (failed.settled, failed.reason) == (0, "released")
    assert await take_turn(restored(journal), turn) == Batched("batch_3", asked=False)
    calls = [entry.call_id for entry in journal.entries if isinstance(entry, ModelStarted)]
    assert len(set(calls)) == 2


async def test_a_batch_that_refuses_a_call_for_good_ends_the_run() -> None:
    model, journal = Batching(), MemoryJournal()
    turn = make_turn(model, journal)
    await take_turn(State([TASK]), turn)
    model.reply = ModelError("invalid_request", "no", retryable=False, billed=False)
    with pytest.raises(ModelError, match="no"):
        await take_turn(restored(journal), turn)
    assert restored(journal).submitted is None


@pytest.mark.parametrize("made", [True, False])
async def test_a_cancelled_call_is_kept_when_a_batch_has_it_and_released_when_nothing_was_sent(made: bool) -> None:
    model, journal = Batching(), MemoryJournal()
    model.go_on.clear()
    task = asyncio.create_task(take_turn(State([TASK]), make_turn(model, journal)))
    await model.making.wait()
    if made:
        model.go_on.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started, last = journal.entries
    assert isinstance(started, ModelStarted)
    if made:
        assert last == ModelSubmitted(started.call_id, 1, "batch_1")
        assert restored(journal).submitted == started
    else:
        assert isinstance(last, ModelFailed)
        assert (last.code, last.settled, last.reason) == ("cancelled", 0, "released")


async def test_a_call_that_is_asked_for_again_survives_a_cancellation() -> None:
    model, journal = Batching(), MemoryJournal()
    turn = make_turn(model, journal)
    await take_turn(State([TASK]), turn)
    before = list(journal.entries)

    class Slow(Batching):
        async def complete(self, request: Request, draft: Draft) -> None:
            draft.batch_id = request.batch_id
            self.making.set()
            await asyncio.Event().wait()

    slow = Slow()
    task = asyncio.create_task(take_turn(restored(journal), make_turn(slow, journal)))
    await slow.making.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal.entries == before
