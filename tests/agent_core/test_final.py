"""Final tools: the result of a call that succeeds is the run's answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pydantic
import pytest

from agent_core import Agent, Completed, Stopped, Tool, ToolError, tool
from agent_core.defaults import MemoryJournal
from agent_core.entries import GuardrailChecked
from agent_core.guardrails import Check, Guard, Redact, output_check
from agent_core.patterns import Chain
from agent_core.ports import Model
from agent_core.state import State
from agent_core.testing import ScriptedModel, calls, says
from tests.agent_core.harness import TASK, Killed, MortalJournal, make_agent, make_ports, play, reread


@tool(effect="read")
async def look(at: int) -> dict[str, int]:
    """Looks at something."""
    return {"seen": at}


@tool(effect="write", idempotent=True, final=True)
async def settle(number: int) -> dict[str, int]:
    """Settles it."""
    if number < 0:
        raise ToolError("number is below 0; expected one from 0", code="negative")
    return {"number": number}


class Number(pydantic.BaseModel):
    number: int = pydantic.Field(ge=0, le=9)


def agent(**fields: Any) -> Agent:
    return make_agent([look, settle], **fields)


async def test_the_result_of_a_final_tool_is_the_answer_and_the_model_is_not_asked_again() -> None:
    model, journal, state = ScriptedModel([calls(("settle", {"number": 7}))]), MemoryJournal(), State([TASK])
    assert await play(agent(), make_ports(model, journal), state) == Completed('{"number": 7}', "end_turn")
    assert [entry.TYPE for entry in journal.entries][-2:] == ["tool.requested", "tool.completed"]
    assert len(model.requests) == 1
    assert state.messages[-1]["content"][0]["type"] == "tool_result", "a session goes on from whole turns"


async def test_a_final_call_that_fails_is_told_to_the_model() -> None:
    model = ScriptedModel([calls(("settle", {"number": -1})), calls(("settle", {"number": 1}))])
    assert await play(agent(), make_ports(model)) == Completed('{"number": 1}')
    assert "negative" in str(model.requests[1].messages[-1])


async def test_of_parallel_calls_the_first_final_one_that_succeeds_counts_and_all_are_recorded() -> None:
    made = [("look", {"at": 1}), ("settle", {"number": -1}), ("settle", {"number": 2}), ("settle", {"number": 3})]
    model, journal = ScriptedModel([calls(*made)]), MemoryJournal()
    assert await play(agent(), make_ports(model, journal)) == Completed('{"number": 2}')
    assert [entry.TYPE for entry in journal.entries].count("tool.completed") == len(made)


async def test_a_final_result_has_to_fit_the_schema_that_is_asked_for() -> None:
    model = ScriptedModel([calls(("settle", {"number": 70})), calls(("settle", {"number": 7}))])
    assert await play(agent(output=Number), make_ports(model)) == Completed({"number": 7})
    assert "less than or equal to 9" in str(model.requests[1].messages[-1])
    model = ScriptedModel([calls(("settle", {"number": 70}))] * 3)
    outcome = await play(agent(output=Number), make_ports(model))
    assert isinstance(outcome, Stopped)
    assert (outcome.stop_reason, outcome.output) == ("validation_failed", '{"number": 70}')


async def test_it_ends_a_pattern_in_any_phase() -> None:
    model = ScriptedModel([calls(("settle", {"number": 4}))])
    assert await play(agent(pattern=Chain(["think", "answer"])), make_ports(model)) == Completed('{"number": 4}')


async def test_what_the_user_says_afterwards_goes_on_from_it() -> None:
    state = State([TASK])
    await play(agent(), make_ports(ScriptedModel([calls(("settle", {"number": 4}))])), state)
    state.say("and now?")
    model = ScriptedModel([says(""), says("five")])
    assert await play(agent(), make_ports(model), state) == Completed("five")


@pytest.mark.parametrize("keeps_last", [False, True])
@pytest.mark.parametrize("redacted", [False, True])
def test_a_run_that_is_killed_at_any_record_ends_the_same(keeps_last: bool, redacted: bool) -> None:
    script = [calls(("look", {"at": 1})), calls(("look", {"at": 2}), ("settle", {"number": 4}))]
    checks = [output_check(without_four)] if redacted else []
    whole = MemoryJournal()
    expected = asyncio.run(guarded(checks, ScriptedModel(script), whole, State([TASK])))
    assert expected == Completed('{"number": null}' if redacted else '{"number": 4}')
    assert any(isinstance(entry, GuardrailChecked) for entry in whole.entries) == redacted
    for number in range(1, len(whole.entries) + 1):
        first = MortalJournal(number, keeps_last=keeps_last)
        with pytest.raises(Killed):
            asyncio.run(guarded(checks, ScriptedModel(script), first, State([TASK])))
        second, state = MemoryJournal(), State.restore([TASK], reread(first.entries))
        second.entries = list(first.entries)
        assert asyncio.run(guarded(checks, ScriptedModel(script), second, state)) == expected
        models = [entry for entry in second.entries if entry.TYPE == "model.completed"]
        assert len(models) == 2, "no turn is taken after the final call"


def without_four(text: str, input: Any) -> Redact:
    return Redact(json.dumps({"number": None}))


async def guarded(checks: list[Check], model: Model, journal: MemoryJournal, state: State) -> Any:
    ports = make_ports(model, journal)
    return await Guard(checks, state, journal, "go on").around(lambda: play(agent(), ports, state))


def test_only_a_final_tool_says_so_in_its_definition() -> None:
    assert isinstance(settle, Tool)
    assert settle.definition()["final"] is True
    assert "final" not in look.definition()
