"""Patterns: which phases a run goes through, what each is asked, and what comes of it."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest

from agent_core import Budget, Completed, Stopped
from agent_core.defaults import MemoryJournal
from agent_core.entries import ModelStarted, StateChanged
from agent_core.outcomes import Outcome
from agent_core.patterns import Chain, EvaluatorOptimiser, Pattern, PlanExecuteValidate, ReAct, Router
from agent_core.patterns.base import VERDICT
from agent_core.patterns.plan import EXECUTE, PLAN, VALIDATE
from agent_core.state import State
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Json
from tests.agent_core.harness import TASK, Log, make_agent, make_ports, play, texts

PASSED, FAILED = says('{"ok": true, "problems": []}'), says('{"ok": false, "problems": ["too long", "too dull"]}')
SCHEMA: Json = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}


class Played:
    """A run of a pattern to its end."""

    def __init__(self, outcome: Outcome, model: ScriptedModel, journal: MemoryJournal, state: State) -> None:
        self.outcome, self.requests, self.state = outcome, model.requests, state
        self.changes = [e for e in journal.entries if isinstance(e, StateChanged)]
        self.roles = [e.role for e in journal.entries if isinstance(e, ModelStarted)]

    @property
    def phases(self) -> list[str]:
        return [change.state for change in self.changes if change.why == "phase"]

    def told(self, turn: int) -> str:
        """What the user says last in a request."""
        return texts(self.requests[turn].messages[-1:])[-1]

    def asked(self, turn: int) -> Json | None:
        found: Json | None = self.requests[turn].extra.get("output_config", {}).get("format", {}).get("schema")
        return found


async def played(pattern: Pattern, *script: Json, budget: Budget | None = None, **changes: Any) -> Played:
    model, journal, state = ScriptedModel(script), MemoryJournal(), State([TASK])
    agent = make_agent(**{"tools": Log().tools, "pattern": pattern, **changes})
    outcome = await play(agent, make_ports(model, journal), state, budget)
    return Played(outcome, model, journal, state)


async def test_react_adds_nothing() -> None:
    found = await played(ReAct(), calls(("look", {"at": 1})), says("one"))
    assert (found.outcome, found.changes) == (Completed("one"), [])


async def test_a_chain_goes_step_by_step_and_its_last_answer_counts() -> None:
    found = await played(Chain(["think", "write"]), says("hm"), calls(("look", {"at": 1})), says("a poem"))
    assert found.outcome == Completed("a poem")
    assert found.phases == ["executing", "executing"]
    assert [found.told(0), found.told(1)] == ["Step 1 of 2: think", "Step 2 of 2: write"]


async def test_only_the_last_step_of_a_chain_is_held_to_the_schema() -> None:
    found = await played(Chain(["think", "write"]), says("hm"), says('{"number": 3}'), output=SCHEMA)
    assert found.outcome == Completed({"number": 3})
    assert [found.asked(0), found.asked(1)] == [None, SCHEMA]


async def test_a_router_does_the_task_with_the_instructions_of_the_route() -> None:
    routes = {"short": "Be short.", "long": "Be long."}
    found = await played(
        Router(routes), says('{"route": "long"}'), says("so long"), models={"router": "claude-haiku-4-5"}
    )
    assert found.outcome == Completed("so long")
    assert (found.phases, found.roles) == (["routing", "executing"], ["router", "executor"])
    assert found.requests[0].extra["tool_choice"] == {"type": "none"}
    assert found.requests[0].model == "claude-haiku-4-5" != found.requests[1].model
    assert "- long: Be long." in found.told(0)
    assert found.told(1) == "Be long."


async def test_a_route_that_there_is_none_of_is_asked_for_again() -> None:
    routes = {"short": "Be short.", "long": "Be long."}
    found = await played(Router(routes), says('{"route": "wide"}'), says('{"route": "short"}'), says("so"))
    assert found.outcome == Completed("so")
    assert "'wide' is not one of" in found.told(1)


async def test_a_plan_is_made_carried_out_and_checked_each_in_its_role() -> None:
    models = {"planner": "claude-opus-4-5", "validator": "claude-haiku-4-5"}
    script = [says("1. look"), calls(("look", {"at": 1})), says("it is one"), PASSED]
    found = await played(PlanExecuteValidate(), *script, models=models)
    assert found.outcome == Completed("it is one")
    assert found.phases == ["planning", "executing", "validating"]
    assert found.roles == ["planner", "executor", "executor", "validator"]
    assert [r.model for r in found.requests[::3]] == ["claude-opus-4-5", "claude-haiku-4-5"]
    assert [found.told(0), found.told(1), found.told(3)] == [PLAN, EXECUTE, VALIDATE]
    assert [r.extra.get("tool_choice") for r in found.requests] == [{"type": "none"}, None, None, {"type": "none"}]
    assert found.asked(3) == VERDICT


async def test_an_answer_that_does_not_pass_is_planned_again_with_what_was_said_of_it() -> None:
    script = [says("plan"), says("bad"), FAILED, says("plan b"), says("good"), PASSED]
    found = await played(PlanExecuteValidate(), *script)
    assert found.outcome == Completed("good")
    assert "- too long\n- too dull" in found.told(3)


async def test_one_that_never_passes_ends_with_its_last_answer() -> None:
    rounds = [says("plan"), says("bad"), FAILED]
    found = await played(PlanExecuteValidate(replans=1), *rounds, says("plan b"), says("worse"), FAILED)
    assert isinstance(found.outcome, Stopped)
    assert (found.outcome.stop_reason, found.outcome.output) == ("validation_failed", "worse")
    assert "2 times" in found.outcome.detail


async def test_the_answer_that_passed_is_data_where_data_was_asked_for() -> None:
    script = [says("plan"), says('{"number": 3}'), PASSED]
    assert (await played(PlanExecuteValidate(), *script, output=SCHEMA)).outcome == Completed({"number": 3})


async def test_an_evaluator_sends_an_answer_back_until_it_passes() -> None:
    found = await played(EvaluatorOptimiser("It rhymes."), says("a"), FAILED, says("b"), PASSED)
    assert found.outcome == Completed("b")
    assert found.phases == ["executing", "validating", "executing", "validating"]
    assert "It rhymes." in found.told(1)
    assert "- too long" in found.told(2)


async def test_an_evaluator_takes_what_came_of_the_last_round() -> None:
    found = await played(EvaluatorOptimiser("It rhymes.", rounds=1), says("a"), FAILED, says("b"))
    assert found.outcome == Completed("b")


async def test_a_call_in_a_phase_without_tools_is_not_made() -> None:
    log = Log()
    script = [calls(("look", {"at": 1}), ("change", {"to": 1})), says("1. look"), says("done"), PASSED]
    found = await played(PlanExecuteValidate(), *script, tools=log.tools)
    assert found.outcome == Completed("done")
    assert not log.began
    results = [b for b in found.requests[1].messages[-1]["content"] if b["type"] == "tool_result"]
    assert [json.loads(b["content"])["error"]["code"] for b in results] == ["denied", "denied"]


# ---- what an answer has to be


async def test_an_answer_that_does_not_fit_is_repaired() -> None:
    found = await played(ReAct(), says("three"), says('{"number": "three"}'), says('{"number": 3}'), output=SCHEMA)
    assert found.outcome == Completed({"number": 3})
    assert [change.why for change in found.changes] == ["repair", "repair"]
    assert "it is not JSON" in found.told(1)
    assert "number: 'three' is not of type 'integer'" in found.told(2)
    assert all(found.asked(turn) == SCHEMA for turn in range(3))


async def test_after_two_repairs_the_raw_text_is_kept() -> None:
    found = await played(ReAct(), says("one"), says("two"), says("three"), output=SCHEMA)
    assert isinstance(found.outcome, Stopped)
    assert (found.outcome.stop_reason, found.outcome.output) == ("validation_failed", "three")


async def test_each_phase_has_its_own_repairs() -> None:
    bad = says("no JSON")
    script = [says("plan"), bad, bad, says('{"number": 3}'), bad, bad, PASSED]
    assert (await played(PlanExecuteValidate(), *script, output=SCHEMA)).outcome == Completed({"number": 3})


async def test_a_pydantic_model_has_the_last_word() -> None:
    class Even(pydantic.BaseModel):
        number: int

        @pydantic.field_validator("number")
        @classmethod
        def _even(cls, value: int) -> int:
            if value % 2:
                raise ValueError("is odd")
            return value

    found = await played(ReAct(), says('{"number": 3}'), says('{"number": "4"}'), output=Even)
    assert found.outcome == Completed({"number": 4})
    assert "number: Value error, is odd" in found.told(1)


# ---- limits


async def test_a_last_reply_is_not_repaired() -> None:
    found = await played(ReAct(), says("three"), output=SCHEMA, budget=Budget(usd=None, steps=1))
    assert isinstance(found.outcome, Stopped)
    assert (found.outcome.stop_reason, found.outcome.output) == ("validation_failed", "three")
    assert found.changes == []


async def test_the_last_step_is_told_to_conclude_and_the_pattern_goes_no_further() -> None:
    found = await played(Chain(["think", "write"]), says("hm"), budget=Budget(usd=None, steps=1))
    assert isinstance(found.outcome, Stopped)
    assert (found.outcome.stop_reason, found.outcome.output) == ("max_steps", "hm")
    assert "Conclude now" in found.told(0)


async def test_the_calls_of_a_reply_that_was_to_be_the_last_are_not_made() -> None:
    log = Log()
    script = [calls(("change", {"to": 1}), text="so far")]
    found = await played(ReAct(), *script, tools=log.tools, budget=Budget(usd=None, steps=1))
    assert isinstance(found.outcome, Stopped)
    assert (found.outcome.stop_reason, found.outcome.output) == ("max_steps", "so far")
    assert not log.began


async def test_a_last_reply_cut_by_its_own_length_is_no_matter_of_money() -> None:
    found = await played(ReAct(), says("so f", "max_tokens"), budget=Budget(usd=None, steps=1))
    assert isinstance(found.outcome, Stopped)
    assert (found.outcome.stop_reason, found.outcome.code) == ("max_tokens", None)


async def test_a_run_of_a_session_does_not_take_an_earlier_answer_for_its_own() -> None:
    history: list[Json] = [TASK, {"role": "assistant", "content": "an old answer"}, {"role": "user", "content": "new"}]
    outcome = await play(make_agent(), make_ports(ScriptedModel([says("?"), says("")])), State(history))
    assert outcome == Completed("")


# ---- definitions


@pytest.mark.parametrize("steps", [[], "think", ["think", " "], ["think", 3]])
def test_a_chain_is_a_list_of_texts(steps: Any) -> None:
    with pytest.raises(ValueError, match="Chain: steps is"):
        Chain(steps)


@pytest.mark.parametrize("routes", [{}, {"one": "Be one."}, {"one": "Be one.", "two": ""}])
def test_a_router_has_at_least_two_routes(routes: Any) -> None:
    with pytest.raises(ValueError, match="Router: routes is"):
        Router(routes)


def test_patterns_are_told_apart_by_their_definitions() -> None:
    patterns: list[Pattern] = [
        ReAct(),
        Chain(["a"]),
        Chain(["b"]),
        PlanExecuteValidate(),
        PlanExecuteValidate(replans=1),
        PlanExecuteValidate(validator_tools=True),
        EvaluatorOptimiser("a"),
        EvaluatorOptimiser("a", rounds=1),
        Router({"a": "A", "b": "B"}),
    ]
    assert all(isinstance(pattern, Pattern) for pattern in patterns)
    versions = {make_agent(pattern=pattern).version for pattern in patterns}
    assert len(versions) == len(patterns)
    assert make_agent(pattern=ReAct()).version == make_agent().version
