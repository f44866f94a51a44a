"""The last call: when a limit has no room for a whole call, a smaller one in which the agent is told to conclude."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core import Agent, Budget, BudgetError, Completed, Outcome, Stopped, tool
from agent_core.defaults import MemoryJournal
from agent_core.entries import Entry, ModelCompleted, ModelStarted
from agent_core.outcomes import Held, Refusal
from agent_core.pricing import OWN_TOKENS, PUBLISHED
from agent_core.state import State
from agent_core.testing import ScriptedModel, calls, says
from agent_core.turn import LEAST_OUTPUT
from agent_core.types import AtLimit, Json, usd
from tests.agent_core.harness import MODEL, TASK, make_agent, make_ports, play, reread

FIRST = {**calls(("look", {"at": 1}), text="so far"), "usage": {"input_tokens": 100, "output_tokens": 4_000}}
SCRIPT = [FIRST, says("all in all")]
SPENT = 40_200
"""Micro-dollars of the first call, so much that what has room for a small second one has room for it."""
USED = 4_100
"""Its tokens."""
THINKING = {"type": "enabled", "budget_tokens": 2000}


@tool(effect="read")
async def look(at: int) -> Json:
    """Looks at something."""
    return {"seen": at}


def started(journal: MemoryJournal) -> list[ModelStarted]:
    return [entry for entry in journal.entries if isinstance(entry, ModelStarted)]


async def second_call(agent: Agent | None = None) -> ModelStarted:
    """The second call of the script as it is without a limit."""
    journal = MemoryJournal()
    await play(agent or make_agent([look]), make_ports(ScriptedModel(SCRIPT), journal))
    return started(journal)[1]


def input_of(call: ModelStarted) -> int:
    """The bound of a call's input tokens."""
    return call.tokens - call.max_tokens - OWN_TOKENS


def worth(call: ModelStarted, output: int) -> int:
    """Micro-dollars of the call with so many output tokens at most."""
    return PUBLISHED.worst_case(MODEL, input_of(call), output)


async def run(
    budget: Budget, *, script: list[Any] | None = None, agent: Agent | None = None
) -> tuple[Outcome, ScriptedModel, MemoryJournal, State]:
    model, journal, state = ScriptedModel(script or SCRIPT), MemoryJournal(budget), State([TASK])
    outcome = await play(agent or make_agent([look]), make_ports(model, journal), state)
    return outcome, model, journal, state


def how(outcome: Outcome) -> tuple[str, str, str | None, str | None]:
    assert isinstance(outcome, Stopped)
    return outcome.stop_reason, outcome.detail, outcome.output, outcome.code


async def test_a_call_that_just_fits_is_made_whole() -> None:
    call = await second_call()
    for budget in (Budget(usd=usd(SPENT + call.reserved)), Budget(usd=None, tokens=USED + call.tokens)):
        outcome, model, journal, _ = await run(budget)
        assert outcome == Completed("all in all")
        assert [(entry.max_tokens, entry.final) for entry in started(journal)] == [(4096, False)] * 2
        assert model.requests[1].extra == {}


async def test_one_that_does_not_fit_is_made_as_large_as_fits() -> None:
    call = await second_call()
    for less in (1, 5_000, 20_000):
        outcome, model, journal, _ = await run(Budget(usd=usd(SPENT + call.reserved - less)))
        last = started(journal)[1]
        assert outcome == Completed("all in all")
        assert last.final
        assert model.requests[1].max_tokens == last.max_tokens
        assert (last.reserved, input_of(last)) == (worth(call, last.max_tokens), input_of(call))
        assert last.reserved <= call.reserved - less < worth(call, last.max_tokens + 1)


async def test_where_tokens_are_limited_it_takes_all_that_are_left() -> None:
    call = await second_call()
    outcome, model, journal, _ = await run(Budget(usd=None, tokens=USED + call.tokens - 1_000))
    last = started(journal)[1]
    assert outcome == Completed("all in all")
    assert (last.tokens, last.max_tokens, last.final) == (call.tokens - 1_000, 3_096, True)
    assert model.requests[1].max_tokens == 3_096


@pytest.mark.parametrize(("output", "tokens"), [(1_000, 2_000), (2_000, 1_000)])
async def test_the_tighter_limit_decides(output: int, tokens: int) -> None:
    call = await second_call()
    money = usd(SPENT + worth(call, output))
    _, _, journal, _ = await run(Budget(usd=money, tokens=USED + call.tokens - 4_096 + tokens))
    assert started(journal)[1].max_tokens == 1_000


async def test_the_agent_is_told_what_is_left_and_cannot_call_a_tool() -> None:
    agent = make_agent([look], extra={"thinking": THINKING, "top_k": 5})
    call = await second_call(agent)
    _, model, _, state = await run(Budget(usd=usd(SPENT + worth(call, 777))), agent=agent)
    first, last = model.requests
    result, note = last.messages[-1]["content"]
    assert result["type"] == "tool_result"
    assert note == {
        "type": "text",
        "text": "[The limits of this job leave room for one more reply of at most 777 tokens and for no tool call. "
        "Conclude now: give the best answer you can from what you have, and say what is missing.]",
    }
    assert last.extra == {"top_k": 5, "tool_choice": {"type": "none"}}
    assert first.extra == {"thinking": THINKING, "top_k": 5}
    assert last.tools == first.tools, "a request without them would miss the prompt cache"
    assert last.messages[:-1] == state.messages[:2]
    assert state.messages[2]["content"] == [result], "the note is none of the conversation's"


async def test_an_agent_without_tools_gets_the_note_alone() -> None:
    bound = PUBLISHED.worst_case(MODEL, 2_000, 300)
    outcome, model, _, state = await run(Budget(usd=usd(bound)), script=[says("in short")], agent=make_agent())
    assert outcome == Completed("in short")
    (request,) = model.requests
    assert request.extra == {}
    assert [block["text"][:11] for block in request.messages[0]["content"]] == ["go on", "[The limits"]
    assert state.messages[0] == TASK


async def test_a_last_reply_that_its_limit_cut_short_is_the_partial_result() -> None:
    call = await second_call()
    budget = Budget(usd=usd(SPENT + call.reserved - 1))
    outcome, _, journal, _ = await run(budget, script=[FIRST, says("all in", "max_tokens")])
    expected = Stopped(
        "budget_exceeded",
        "the last reply that the budget had room for reached its limit of output tokens",
        "all in",
        code="usd",
    )
    assert outcome == expected
    restored = State.restore([TASK], reread(journal.entries))  # its worker was lost before it could say so
    assert await play(make_agent([look]), make_ports(ScriptedModel([])), restored) == expected


async def test_a_whole_call_that_its_limit_cut_short_is_no_matter_of_the_budget() -> None:
    outcome, *_ = await run(Budget(), script=[says("all in", "max_tokens")])
    assert isinstance(outcome, Stopped)
    assert outcome.stop_reason == "max_tokens"


async def test_a_last_reply_that_asks_for_another_turn_stops_when_that_has_no_room() -> None:
    call = await second_call()
    dear = {**says("wait for me", "pause_turn"), "usage": {"input_tokens": 4_200, "output_tokens": 1_000}}
    outcome, model, _, _ = await run(Budget(usd=usd(SPENT + worth(call, 1_000))), script=[FIRST, dear, says("never")])
    assert isinstance(outcome, Stopped)
    assert (outcome.stop_reason, outcome.output) == ("budget_exceeded", "wait for me")
    assert len(model.requests) == 2


async def test_a_call_with_room_for_hardly_a_word_is_not_made() -> None:
    call = await second_call()
    enough, short = SPENT + worth(call, LEAST_OUTPUT), SPENT + worth(call, LEAST_OUTPUT) - 1
    outcome, _, journal, _ = await run(Budget(usd=usd(enough)))
    assert outcome == Completed("all in all")
    assert started(journal)[1].max_tokens == LEAST_OUTPUT
    outcome, model, journal, _ = await run(Budget(usd=usd(short)))
    detail = f"the next call does not fit into the job's budget: {usd(short - SPENT)} USD of {usd(short)} USD are left"
    assert how(outcome) == ("budget_exceeded", detail, "so far", "usd")
    assert (len(model.requests), len(started(journal))) == (1, 1)


async def test_an_agent_of_few_words_is_not_cut_shorter() -> None:
    agent = make_agent([look], max_tokens=LEAST_OUTPUT - 1)
    call = await second_call(agent)
    outcome, model, _, _ = await run(Budget(usd=usd(SPENT + call.reserved - 1)), agent=agent)
    assert isinstance(outcome, Stopped)
    assert len(model.requests) == 1


async def test_a_limit_that_pauses_holds_the_run_without_a_smaller_call() -> None:
    call = await second_call()
    most = SPENT + call.reserved - 1
    outcome, model, journal, state = await run(Budget(usd=usd(most), at_limit="pause"))
    room = call.reserved - 1
    assert outcome == Held(Refusal("job", "total", "pause", "usd", most, room, room, None))
    assert len(model.requests) == 1
    assert journal.entries[-1].TYPE == "tool.completed"

    goes_on = await play(make_agent([look]), make_ports(model, MemoryJournal()), state)
    assert goes_on == Completed("all in all"), "with the limit raised it goes on where it was"


async def test_a_limit_that_warns_lets_the_run_go_on() -> None:
    outcome, _, journal, _ = await run(Budget(usd="0.000001", tokens=1, at_limit="warn"))
    assert outcome == Completed("all in all")
    assert [(entry.max_tokens, entry.final) for entry in started(journal)] == [(4096, False)] * 2


class Shrinking(MemoryJournal):
    """Others use up the room while a smaller call is being made ready."""

    def __init__(self, at_limit: AtLimit) -> None:
        super().__init__()
        self.rooms = [20_000, 15_000]
        self.at_limit = at_limit
        self.asked: list[ModelStarted] = []

    async def record(self, *entries: Entry) -> None:
        for entry in entries:
            if isinstance(entry, ModelStarted):
                self.asked.append(entry)
                room = self.rooms.pop(0)
                at_limit: AtLimit = "stop" if self.rooms else self.at_limit
                raise BudgetError(Refusal("user:u1", "total", at_limit, "usd", 50_000, room, room))
        await super().record(*entries)


@pytest.mark.parametrize("at_limit", ["stop", "pause"])
async def test_a_smaller_call_that_is_refused_as_well_ends_the_run(at_limit: AtLimit) -> None:
    journal = Shrinking(at_limit)
    outcome = await play(make_agent([look]), make_ports(ScriptedModel([]), journal))
    if at_limit == "pause":
        assert isinstance(outcome, Held)
    else:
        assert isinstance(outcome, Stopped)
        assert outcome.detail.endswith("0.015 USD of 0.05 USD are left")
    assert [call.final for call in journal.asked] == [False, True]
    assert journal.asked[1].reserved <= 20_000


# ---- the journal in memory, which holds a run to its budget


async def test_the_journal_in_memory_counts_what_was_settled_and_not_what_was_reserved() -> None:
    journal = MemoryJournal(Budget(usd="0.001", tokens=1_000))
    usage = {"input_tokens": 100, "output_tokens": 50, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 20}
    for n in (1, 2):
        await journal.record(ModelStarted(f"c{n}", n, MODEL, 600, 700))
        await journal.record(ModelCompleted(f"c{n}", n, MODEL, [], "end_turn", usage, "p", 600, 200, "settled"))
    with pytest.raises(BudgetError) as caught:
        await journal.record(ModelStarted("c3", 3, MODEL, 601, 600))
    assert caught.value.refusal == Refusal("job", "total", "stop", "usd", 1_000, 600, 600, 600)
    with pytest.raises(BudgetError) as caught:
        await journal.record(ModelStarted("c3", 3, MODEL, 600, 601))
    assert caught.value.refusal == Refusal("job", "total", "stop", "tokens", 1_000, 600, 600, 600)
    await journal.record(ModelStarted("c3", 3, MODEL, 600, 600))


async def test_the_journal_in_memory_counts_the_worst_case_of_a_reply_without_a_usage() -> None:
    journal = MemoryJournal(Budget(usd=None, tokens=1_000))
    await journal.record(ModelStarted("c1", 1, MODEL, 600, 700))
    await journal.record(ModelCompleted("c1", 1, MODEL, [], "end_turn", None, "p", 600, 600, "worst_case"))
    with pytest.raises(BudgetError) as caught:
        await journal.record(ModelStarted("c2", 2, MODEL, 600, 301))
    assert caught.value.refusal.left == 300
