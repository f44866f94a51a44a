"""A long session: what of it gives way to a summary before a job's first reply, and what happens without one."""

from __future__ import annotations

import pytest

from agent_core import Budget, Completed, ModelError
from agent_core.agent import Agent
from agent_core.compaction import LONG_SESSION, SUMMARISE, SUMMARISE_SESSION
from agent_core.defaults import MemoryJournal
from agent_core.entries import Compacted, Entry, ModelStarted, ResultsCleared
from agent_core.messages import size_of, tool_uses
from agent_core.outcomes import Deferred, Outcome
from agent_core.ports import Request
from agent_core.state import SUMMARY, State
from agent_core.testing import says
from agent_core.types import Json
from tests.agent_core.harness import SummingModel, make_agent, make_ports, play, reread, summary_of, texts

WINDOW = 2_000
LONG = int(3 * LONG_SESSION * WINDOW)
"""Bytes of a session that is too long to go on with."""
OVERLOADED = ModelError("overloaded", "busy", retryable=True, billed=False)
UNSOUND = [says("I would rather not"), says(""), says(summary_of(0, size=WINDOW)), says("no", "refusal"), OVERLOADED]


class OneReply(SummingModel):
    """Is at the first turn of its job, whatever its session says."""

    def turn(self, request: Request) -> int:
        return 0


def session(jobs: int, size: int = 300) -> list[Json]:
    """What so many jobs said, each with a call of a tool."""
    said: list[Json] = []
    for number in range(jobs):
        call: Json = {"type": "tool_use", "id": f"t{number}", "name": "look", "input": {}}
        result: Json = {"type": "tool_result", "tool_use_id": f"t{number}", "content": "." * size}
        said += [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
            {"role": "assistant", "content": [{"type": "text", "text": f"answer {number}"}]},
        ]
    return said


def begin(history: list[Json], task: str = "the task") -> State:
    state = State([*history])
    state.open(task, [], 0)
    return state


async def run(
    model: OneReply, state: State, journal: MemoryJournal | None = None
) -> tuple[Outcome, list[Entry], Agent]:
    agent = make_agent(context_window=WINDOW, max_tokens=400, budget=Budget(usd=None, steps=None))
    journal = journal or MemoryJournal()
    outcome = await play(agent, make_ports(model, journal), state)
    return outcome, journal.entries, agent


def last(model: OneReply) -> Request:
    return model.requests[-1]


async def test_a_long_session_is_summed_up_before_the_first_reply() -> None:
    history = session(12)
    model = OneReply([says("done")])
    state = begin(history)
    outcome, entries, _ = await run(model, state)
    assert outcome == Completed("done")
    (compacted,) = (e for e in entries if isinstance(e, Compacted))
    (asked,) = model.asked
    assert texts(asked.messages)[-1] == SUMMARISE_SESSION != SUMMARISE
    assert len(asked.messages) == compacted.covers == state.replaced
    kept = history[compacted.covers :]
    summary = {"role": "user", "content": f"{SUMMARY}{compacted.summary}"}
    assert last(model).messages == [summary, *kept, {"role": "user", "content": "the task"}]
    assert kept
    assert kept[0]["role"] == "assistant"
    assert sum(map(size_of, kept)) < LONG
    assert state.head == len(kept) + 2
    started = next(e for e in entries if isinstance(e, ModelStarted) and e.role == "summariser")
    assert (started.step, started.reserved > 0) == (0, True)


async def test_a_session_that_is_not_long_stays_word_for_word() -> None:
    history = session(3)
    assert LONG / 2 < sum(map(size_of, history)) < LONG
    model = OneReply([says("done")])
    _, entries, _ = await run(model, begin(history))
    assert last(model).messages[:-1] == history
    assert not [e for e in entries if isinstance(e, Compacted)]


async def test_no_call_is_parted_from_its_result() -> None:
    for jobs in range(7, 16):
        model = OneReply([says("done")])
        await run(model, begin(session(jobs)))
        calls = [call["id"] for m in last(model).messages for call in tool_uses(m) if m["role"] == "assistant"]
        results = [
            b["tool_use_id"]
            for m in last(model).messages
            if m["role"] == "user" and isinstance(m["content"], list)
            for b in m["content"]
        ]
        assert calls == results


@pytest.mark.parametrize("odd", UNSOUND)
async def test_without_a_summary_the_session_stays_whole(odd: Json | ModelError) -> None:
    history = session(6)
    model = OneReply([says("done")], odd=[odd] * 100)
    state = begin(history)
    outcome, entries, _ = await run(model, state)
    assert outcome == Completed("done"), "a job does not wait for a summary that it can do without"
    assert last(model).messages[:-1] == history
    assert (state.replaced, state.head) == (0, len(history) + 1)
    assert not [e for e in entries if isinstance(e, Compacted | ResultsCleared)]
    assert len(model.asked) <= 3


async def test_a_session_that_fills_the_window_waits_for_a_summariser_without_capacity() -> None:
    outcome, _, _ = await run(OneReply([says("done")], odd=[OVERLOADED] * 3), begin(session(12)))
    assert isinstance(outcome, Deferred)


async def test_what_was_asked_in_vain_at_the_beginning_does_not_count_later() -> None:
    state = begin(session(6))
    await run(OneReply([says("done")], odd=[says("no")] * 2), state)
    assert (state.summary, state.summaries) == (None, 0)


async def test_a_run_that_is_restored_goes_on_with_the_same_summary() -> None:
    history = session(12)
    journal = MemoryJournal()
    whole = begin(history)
    await run(OneReply([says("done")]), whole, journal)
    for cut in range(len(journal.entries) + 1):
        model, state = OneReply([says("done")]), begin(history)
        for entry in reread(journal.entries[:cut]):
            state.apply(entry)
        outcome, _, _ = await run(model, state)
        assert outcome == Completed("done")
        assert (state.messages, state.replaced, state.head) == (whole.messages, whole.replaced, whole.head)
        assert len(model.asked) == (cut < 2), "a summary that was recorded is not asked for again"


async def test_a_summary_takes_the_one_before_up() -> None:
    model = OneReply([says("done")])
    first = begin(session(12))
    await run(model, first)
    again = OneReply([says("done")])
    second = begin([*first.messages[: first.head - 1], *session(12)])
    await run(again, second)
    (asked,) = again.asked
    assert asked.messages[0] == first.messages[0]
    assert sum(text.startswith(SUMMARY) for text in texts(second.messages)) == 1


async def test_a_session_longer_than_the_window_is_summed_up_part_by_part() -> None:
    history = session(60)
    assert sum(map(size_of, history)) > 9 * WINDOW
    model, state = OneReply([says("done")]), begin(history)
    outcome, entries, _ = await run(model, state)
    assert outcome == Completed("done")
    assert len(model.asked) == len([e for e in entries if isinstance(e, Compacted)]) > 1
    for request in [*model.asked, last(model)]:
        assert sum(map(size_of, request.messages)) < 3 * WINDOW * 1.5
    kept = state.messages[1 : state.head - 1]
    assert history[state.replaced :] == kept


async def test_a_task_that_fills_the_window_makes_the_session_give_way_once() -> None:
    model, state = OneReply([says("done")]), begin(session(6), task="word " * 1_000)
    outcome, _, _ = await run(model, state)
    assert outcome == Completed("done")
    assert len(model.asked) == 1
    assert texts(state.messages)[-2] == "word " * 1_000


async def test_one_message_is_not_worth_a_summary() -> None:
    history: list[Json] = [{"role": "user", "content": "x" * LONG}, {"role": "assistant", "content": "indeed"}]
    model = OneReply([says("done")])
    await run(model, begin(history))
    assert not model.asked
    assert last(model).messages[:-1] == history


async def test_the_task_is_a_message_of_its_own_after_a_session_that_ends_with_the_users_word() -> None:
    history: list[Json] = [{"role": "user", "content": "a job whose answer was empty"}]
    state = begin(history)
    assert state.messages == [*history, {"role": "user", "content": "the task"}]
    assert state.size == sum(map(size_of, state.messages))
    assert state.messages[state.head - 1 :] == [{"role": "user", "content": "the task"}]
