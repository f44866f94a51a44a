"""Runs that go in circles, and tools that are of no use."""

from __future__ import annotations

import json
from typing import Any

from agent_core import Completed, Stopped, ToolError, tool
from agent_core.defaults import MemoryJournal
from agent_core.entries import StateChanged, ToolRequested
from agent_core.outcomes import Outcome
from agent_core.patterns import PlanExecuteValidate
from agent_core.state import State
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Json
from tests.agent_core.harness import TASK, Log, make_agent, make_ports, play, reread

SAME = calls(("look", {"at": 1}))


def looks(at: int) -> Json:
    return calls(("look", {"at": at}))


async def run(*script: Json, state: State | None = None, **changes: Any) -> tuple[Outcome, list[str], MemoryJournal]:
    """How it ended, why the platform spoke on the way, and what was recorded."""
    journal = MemoryJournal()
    agent = make_agent(**{"tools": Log().tools, **changes})
    outcome = await play(agent, make_ports(ScriptedModel(script), journal), state)
    return outcome, [e.why for e in journal.entries if isinstance(e, StateChanged)], journal


async def test_the_third_time_is_warned_of_and_the_fourth_ends_the_run() -> None:
    outcome, why, journal = await run(SAME, SAME, SAME, SAME, says("never"))
    assert isinstance(outcome, Stopped)
    assert (outcome.stop_reason, why) == ("loop_detected", ["loop"])
    assert sum(isinstance(e, ToolRequested) for e in journal.entries) == 4
    state = State.restore([TASK], reread(journal.entries))
    outcome, why, _ = await run(state=state)  # its worker was lost before it could say so
    assert isinstance(outcome, Stopped)
    assert (outcome.stop_reason, why) == ("loop_detected", [])


async def test_twice_is_no_loop() -> None:
    assert (await run(SAME, SAME, says("one")))[:2] == (Completed("one"), [])


async def test_who_heeds_the_warning_goes_on() -> None:
    outcome, why, _ = await run(SAME, SAME, SAME, looks(2), looks(3), says("three"))
    assert (outcome, why) == (Completed("three"), ["loop"])


async def test_as_many_at_once_are_warned_of_first() -> None:
    crowd = calls(*[("look", {"at": 1})] * 5)
    outcome, why, _ = await run(crowd, looks(2), says("two"))
    assert (outcome, why) == (Completed("two"), ["loop"])
    outcome, _, _ = await run(crowd, SAME, says("never"))
    assert isinstance(outcome, Stopped)


async def test_other_arguments_or_another_result_is_no_loop() -> None:
    seen = iter(range(10))

    @tool(effect="read")
    async def count() -> int:
        """Counts."""
        return next(seen)

    assert (await run(looks(1), looks(2), looks(3), looks(4), says("so")))[:2] == (Completed("so"), [])
    outcome, why, _ = await run(*[calls(("count", {}))] * 4, says("so"), tools=[count])
    assert (outcome, why) == (Completed("so"), [])


async def test_what_was_long_ago_is_forgotten() -> None:
    between = [looks(at) for at in range(10, 21)]
    assert (await run(SAME, SAME, *between, SAME, says("so")))[:2] == (Completed("so"), [])


async def test_a_retry_begins_without_what_was_held_against_it() -> None:
    _, _, journal = await run(SAME, SAME, SAME, SAME)
    state = State.restore([TASK], reread(journal.entries))
    state.reopen()
    outcome, why, _ = await run(*[SAME] * 4, says("so"), state=state)
    assert (outcome, why) == (Completed("so"), [])


# ---- tools out of order


def flaky(*works: bool) -> tuple[Any, list[int]]:
    """A tool that fails where it does not work, call by call, and which calls it got."""
    began: list[int] = []

    @tool(effect="read")
    async def fetch(page: int) -> str:
        """Fetches a page."""
        began.append(page)
        if not works[len(began) - 1]:
            raise ToolError("no answer")
        return "a page"

    return fetch, began


def fetches(*pages: int) -> Json:
    return calls(*[("fetch", {"page": page}) for page in pages])


async def test_a_tool_that_fails_three_times_in_a_row_is_not_called_again() -> None:
    fetch, began = flaky(False, False, False, True)
    state = State([TASK])
    script = [fetches(1), fetches(2), fetches(3), fetches(4), says("no page")]
    outcome, _, journal = await run(*script, tools=[fetch], state=state)
    assert (outcome, began) == (Completed("no page"), [1, 2, 3])
    told = json.loads(state.messages[-2]["content"][0]["content"])["error"]
    assert told["code"] == "tool_out_of_order"
    assert "out of use for the rest of this job" in told["message"]
    assert not any(isinstance(e, ToolRequested) and e.input == {"page": 4} for e in journal.entries)


async def test_a_success_in_between_clears_it() -> None:
    fetch, began = flaky(False, False, True, False, False, True)
    outcome, _, _ = await run(*[fetches(n) for n in range(6)], says("a page"), tools=[fetch])
    assert (outcome, len(began)) == (Completed("a page"), 6)


async def test_what_counts_is_the_order_of_the_calls_and_not_that_of_their_ends() -> None:
    fetch, began = flaky(False, False, False, True)
    await run(fetches(1, 2, 3, 4), says("so"), tools=[fetch])
    assert began == [1, 2, 3, 4], "calls of one turn are all made"


async def test_calls_that_were_not_let_run_count_for_no_tool() -> None:
    fetch, began = flaky(True)
    pattern, passed = PlanExecuteValidate(), says('{"ok": true, "problems": []}')
    script = [fetches(1), fetches(2), fetches(3), says("plan"), fetches(4), says("a page"), passed]
    outcome, _, _ = await run(*script, tools=[fetch], pattern=pattern)
    assert (outcome, began) == (Completed("a page"), [4])
