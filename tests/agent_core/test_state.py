"""The state is the fold of the journal, cut where you like, and a run that was killed goes on from it."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_core import Budget, Completed, ModelError, Stopped, Suspended, ToolError, tool
from agent_core.defaults import MemoryJournal
from agent_core.entries import ApprovalDecided, Entry, ModelCompleted, ModelFailed, ToolCompleted, ToolRequested
from agent_core.messages import tool_uses
from agent_core.outcomes import Outcome
from agent_core.patterns import Chain, EvaluatorOptimiser, PlanExecuteValidate, ReAct, Router
from agent_core.results import as_data
from agent_core.state import State, commit
from agent_core.testing import DEFAULT_USAGE, calls, says
from agent_core.types import Json
from simulator.validation import check_request
from tests.agent_core.harness import (
    TASK,
    Killed,
    Log,
    MortalJournal,
    SummingModel,
    make_agent,
    make_ports,
    play,
    reread,
)

NUMBER: Json = {
    "type": "object",
    "properties": {"number": {"type": "integer"}},
    "required": ["number"],
    "additionalProperties": False,
}


@tool(effect="read", final=True)
async def finish(number: int) -> Json:
    """Ends the run, unless it is too early."""
    if number == 0:
        raise ToolError("it is too early", code="early")
    return {"number": number}


NUMBERS = st.integers(0, 3)
CALLS = st.one_of(
    st.tuples(st.just("look"), st.fixed_dictionaries({"at": NUMBERS})),
    st.tuples(st.just("change"), st.fixed_dictionaries({"to": NUMBERS})),
    st.tuples(st.just("pay"), st.fixed_dictionaries({"amount": NUMBERS})),
    st.tuples(st.just("erase"), st.fixed_dictionaries({"what": NUMBERS})),  # denied
    st.tuples(st.just("finish"), st.fixed_dictionaries({"number": NUMBERS})),
    st.just(("look", {"at": "nowhere"})),  # arguments that do not fit
    st.just(("sing", {})),  # no such tool
)
ANSWERS = [
    "so",
    '{"ok": true, "problems": []}',
    '{"ok": false, "problems": ["no"]}',
    '{"route": "long"}',
    '{"number": 3}',
]
TURNS = st.one_of(
    st.builds(
        lambda text, chosen: calls(*chosen, text=text),
        st.sampled_from(["", " ", "so"]),
        st.lists(CALLS, min_size=1, max_size=3),
    ),
    st.just(says("wait for me", "pause_turn")),
    st.builds(says, st.sampled_from(ANSWERS)),
    st.builds(ModelError, st.just("overloaded"), st.just("busy"), retryable=st.just(True)),
)
SCRIPTS = (
    st.lists(TURNS, max_size=6)
    .filter(lambda turns: sum(isinstance(t, ModelError) for t in turns) < 3)
    .map(lambda turns: [*turns, says("wait for me", "pause_turn")])
)
SETUPS = st.fixed_dictionaries(
    {
        "pattern": st.sampled_from(
            [
                ReAct(),
                Chain(["think", "answer"]),
                PlanExecuteValidate(replans=1),
                EvaluatorOptimiser("be kind", rounds=1),
                Router({"short": "be short", "long": "be long"}),
            ]
        ),
        "output": st.sampled_from([None, NUMBER]),
        "context_window": st.sampled_from([200_000, 400, 256]),
    }
)
"""Agents of every pattern; with a small window each run is summed up, and where that is not enough results go."""


class Watched(State):
    """A state that remembers what it was after each entry."""

    def __init__(self) -> None:
        super().__init__([TASK])
        self.applied: list[Entry] = []
        self.pictures = [picture(self)]

    def apply(self, entry: Entry) -> None:
        super().apply(entry)
        self.applied.append(entry)
        self.pictures.append(picture(self))


def picture(state: State) -> Json:
    return {f.name: copy.deepcopy(getattr(state, f.name)) for f in fields(State)}


def check_messages(messages: list[Json]) -> None:
    """The server's own rules, and the two sides in turn; only a paused reply is followed by another one."""
    check_request({"model": "m", "max_tokens": 1, "messages": messages})
    for before, after in itertools.pairwise(messages):
        paused = before["role"] == after["role"] == "assistant" and not tool_uses(before)
        assert paused or before["role"] != after["role"]


def run_script(
    script: list[Any], setup: Json, log: Log, journal: MemoryJournal, state: State, odd: list[Json] | None = None
) -> tuple[Outcome | None, SummingModel]:
    """Plays a script from a state; no outcome when the journal dies."""
    model = SummingModel(script, odd=odd or [])
    agent = make_agent([*log.tools, finish], max_tokens=64, budget=Budget(usd=None), **setup)
    try:
        outcome = asyncio.run(play(agent, make_ports(model, journal), state))
    except Killed:
        outcome = None
    for request in [*model.requests, *model.asked]:
        check_messages(request.messages)
    return outcome, model


@settings(max_examples=60, deadline=None)
@given(SCRIPTS, SETUPS)
def test_folding_a_recorded_prefix_gives_the_live_state(script: list[Any], setup: Json) -> None:
    state, journal = Watched(), MemoryJournal()
    outcome, _ = run_script(script, setup, Log(), journal, state, odd=[says("no summary")])
    assert isinstance(outcome, Completed | Stopped)
    if isinstance(outcome, Stopped):
        assert outcome.stop_reason in ("validation_failed", "loop_detected")
    assert journal.entries == state.applied
    entries = reread(journal.entries)
    for cut, seen in enumerate(state.pictures):
        assert picture(State.restore([TASK], entries[:cut])) == seen
        assert seen["size"] == State(seen["messages"]).size


def ways_to_die(script: list[Any], setup: Json) -> Iterator[tuple[MortalJournal, Log]]:
    """A journal that dies, and the tools' log, for each record of an undisturbed run."""
    journal = MemoryJournal()
    run_script(script, setup, Log(), journal, State([TASK]))
    for number in range(1, len(journal.entries) + 1):
        for keeps_last in (False, True):
            yield MortalJournal(number, keeps_last=keeps_last), Log()


@settings(max_examples=12, deadline=None)
@given(SCRIPTS, SETUPS)
def test_a_killed_run_goes_on_and_repeats_nothing_recorded(script: list[Any], setup: Json) -> None:
    undisturbed = State([TASK])
    expected, _ = run_script(script, setup, Log(), MemoryJournal(), undisturbed)
    for journal, log in ways_to_die(script, setup):
        run_script(script, setup, log, journal, State([TASK]))
        recorded = reread(journal.entries)
        done = {e.call_id: log.began[e.call_id] for e in recorded if isinstance(e, ToolCompleted)}
        turns = sum(isinstance(e, ModelCompleted) and e.role != "summariser" for e in recorded)
        ambiguous = unfinished_changes(recorded)

        second = MemoryJournal()
        second.entries = recorded
        state = State.restore([TASK], recorded)
        outcome, model = run_script(script, setup, log, second, state)
        if ambiguous:
            assert outcome == Suspended("needs_reconcile", [c for c in state.open_calls() if c["id"] in ambiguous])
            assert {c["id"] for c in state.open_calls()} >= ambiguous
            for call_id in ambiguous:  # a person finds out that it was done
                entry = next(e for e in second.entries if isinstance(e, ToolRequested) and e.call_id == call_id)
                state.apply(ToolCompleted(call_id, entry.step, "change", f"changed to {entry.input['to']}", False))
            outcome, model = run_script(script, setup, log, second, state)

        assert outcome == expected
        assert lasting(state) == lasting(undisturbed)
        assert all(model.turn(request) >= turns for request in model.requests)
        assert {call_id: log.began[call_id] for call_id in done} == done
        assert all(log.began[call["id"]] <= 1 for call in all_calls(state) if call["name"] == "change")


def unfinished_changes(entries: list[Entry]) -> set[str]:
    done = {e.call_id for e in entries if isinstance(e, ToolCompleted)}
    return {e.call_id for e in entries if isinstance(e, ToolRequested) and e.name == "change"} - done


def lasting(state: State) -> Json:
    """A state without what hangs on how often a call was tried, on the ids of calls, and on how long they took."""
    kept = {name: value for name, value in picture(state).items() if name not in ("usage", "summaries")}
    return {**kept, "results": {id_: replace(found, seconds=0.0) for id_, found in state.results.items()}}


def all_calls(state: State) -> list[Json]:
    return [call for message in state.messages for call in tool_uses(message)]


# ---- one entry at a time


def reply(*content: Json, stop_reason: str = "end_turn", step: int = 1) -> ModelCompleted:
    return ModelCompleted(f"m{step}", step, "m", list(content), stop_reason, DEFAULT_USAGE, "p", 900, 400, "settled")


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def call(id_: str) -> Json:
    return {"type": "tool_use", "id": id_, "name": "look", "input": {"at": 1}}


def result(id_: str, *, is_error: bool = False) -> ToolCompleted:
    return ToolCompleted(id_, 1, "look", f"result of {id_}", is_error)


def test_results_stand_in_the_order_of_the_calls_whatever_came_first() -> None:
    state = State.restore([TASK], [reply(call("a"), call("b"), stop_reason="tool_use"), result("b", is_error=True)])
    assert state.open_calls() == [call("a")]
    state.apply(result("a"))
    assert state.open_calls() == []
    assert state.messages[-1]["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": as_data("look", "result of a")},
        {"type": "tool_result", "tool_use_id": "b", "content": "result of b", "is_error": True},
    ]


@pytest.mark.parametrize("stop_reason", ["max_tokens", "refusal", "pause_turn", "something_new"])
def test_the_calls_of_a_reply_that_was_cut_off_are_not_open(stop_reason: str) -> None:
    assert State.restore([TASK], [reply(call("a"), stop_reason=stop_reason)]).open_calls() == []


def test_text_blocks_without_text_are_not_sent_back() -> None:
    state = State.restore([TASK], [reply(text(""), text("so"), text(" \n"))])
    assert state.messages[-1]["content"] == [text("so")]
    assert State.restore([TASK], [reply(text(""))]).messages == [TASK]


def test_usage_counts_failed_attempts_too() -> None:
    failed = ModelFailed("m0", 1, "m", "early_end", "cut", {"input_tokens": 7}, "p", 900, 30, "cut_stream")
    usage = State.restore([TASK], [failed, reply(call("a"), stop_reason="tool_use"), result("a")]).usage
    assert (usage.model_calls, usage.tool_calls, usage.cost, usage.input_tokens) == (2, 1, 430, 107)


def test_what_was_decided_about_calls_holds_for_the_last_reply_and_until_a_retry() -> None:
    decided = ApprovalDecided("appr_1", "a", "look", "approve", "key_1", input={"at": 2})
    state = State.restore([TASK], [reply(call("a"), stop_reason="tool_use"), decided])
    assert state.decided == {"a": decided}
    assert [call["input"] for call in state.open_calls()] == [{"at": 2}]
    state.reopen()
    assert state.decided == {}
    state = State.restore([TASK], [reply(call("a"), stop_reason="tool_use"), decided])
    state.apply(reply(text("never mind"), step=2))
    assert state.decided == {}


def test_what_the_user_says_gives_open_calls_up() -> None:
    state = State.restore([TASK], [reply(call("a"), call("b"), stop_reason="tool_use"), result("b")])
    state.say("stop that")
    check_messages(state.messages)
    given_up, kept, said = state.messages[-1]["content"]
    assert given_up["is_error"]
    assert kept["content"] == as_data("look", "result of b")
    assert said == text("stop that")
    assert state.stop_reason is None


def test_two_messages_of_the_users_become_one() -> None:
    state = State([TASK])
    state.say("and hurry")
    assert state.messages == [{"role": "user", "content": [text("go on"), text("and hurry")]}]
    assert TASK == {"role": "user", "content": "go on"}
    assert state.size == State(state.messages).size


def test_reopen_takes_back_a_last_reply_that_ended_the_run() -> None:
    state = State.restore([TASK], [reply(text("I will not"), stop_reason="refusal")])
    state.reopen()
    assert (state.messages, state.stop_reason, state.size) == ([TASK], None, State([TASK]).size)


@pytest.mark.parametrize("stop_reason", ["tool_use", "end_turn", "pause_turn"])
def test_reopen_leaves_a_turn_that_is_still_under_way(stop_reason: str) -> None:
    state = State.restore([TASK], [reply(call("a"), stop_reason=stop_reason)])
    state.reopen()
    assert len(state.messages) == 2


def test_reopen_leaves_the_messages_when_the_last_reply_was_empty() -> None:
    state = State.restore([TASK], [reply(stop_reason="refusal")])
    state.reopen()
    assert (state.messages, state.stop_reason) == ([TASK], None)


def test_the_last_text_is_that_of_the_newest_reply_that_has_any() -> None:
    assert State([TASK]).last_text() is None
    entries: list[Entry] = [reply(text("I look"), call("a"), stop_reason="tool_use"), result("a"), reply(step=2)]
    assert State.restore([TASK], entries).last_text() == "I look"


def test_size_is_that_of_the_messages_as_json() -> None:
    assert State([{"role": "user", "content": "é\ud800"}]).size == len('{"role": "user", "content": "??"}') + 1 + 2


# ---- commit


class SlowJournal(MemoryJournal):
    """Keeps an entry when it is allowed to, or fails then."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__()
        self.reached, self.allowed = asyncio.Event(), asyncio.Event()
        self.fault = fault

    async def record(self, *entries: Entry) -> None:
        self.reached.set()
        await self.allowed.wait()
        if self.fault is not None:
            raise self.fault
        await super().record(*entries)


async def test_a_cancellation_waits_for_the_record() -> None:
    state, journal = State([TASK]), SlowJournal()
    task = asyncio.create_task(commit(state, journal, reply(text("hi"))))
    await journal.reached.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    journal.allowed.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(journal.entries) == 1
    assert state.step == 1


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_record_that_fails_is_not_folded_in(cancelled: bool) -> None:
    state, journal = State([TASK]), SlowJournal(Killed())
    task = asyncio.create_task(commit(state, journal, reply(text("hi"))))
    await journal.reached.wait()
    if cancelled:
        task.cancel()
    journal.allowed.set()
    with pytest.raises(Killed):
        await task
    assert state.step == 0
