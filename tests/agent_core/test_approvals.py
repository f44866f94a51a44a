"""When a call waits for a person, and what the run makes of what was decided."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_core import Agent, Ask, ask, tool
from agent_core.approvals import Policy, rebuilt
from agent_core.entries import ApprovalDecided, Entry, ToolRequested
from agent_core.errors import DefinitionError
from agent_core.outcomes import Completed, Suspended
from agent_core.questions import ask_human
from agent_core.state import State
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Json
from tests.agent_core.harness import TASK, Log, make_agent, make_ports, play, reread
from tests.agent_core.harness import MortalJournal as Journal


@tool(effect="destructive")
async def refund(amount: int) -> str:
    """Pays money back."""
    return f"refunded {amount}"


@tool(effect="write", price_usd="0.30")
async def report(text: str) -> str:
    """Buys a report."""
    return text


TOOLS = [refund, report, ask_human]


def big(input: Json) -> bool:
    return bool(input["amount"] > 50)


def decision(agent: Agent, name: str, given: Json, spent: int = 0) -> str:
    effect = agent.registry.effect(name)
    return Policy(agent, lambda: spent).decide(name, given, effect, "c1")


@pytest.mark.parametrize(
    ("rules", "name", "given", "spent", "expected"),
    [
        ({}, "refund", {"amount": 1}, 0, "ask"),
        ({}, "report", {"text": "x"}, 0, "run"),
        ({"refund": "never"}, "refund", {"amount": 1}, 0, "run"),
        ({"report": "always"}, "report", {"text": "x"}, 0, "ask"),
        ({"refund": ask(when=big)}, "refund", {"amount": 50}, 0, "run"),
        ({"refund": ask(when=big)}, "refund", {"amount": 51}, 0, "ask"),
        ({"refund": ask(when=big)}, "refund", {}, 0, "ask"),  # the rule raises
        ({"report": ask(above_usd="0.50")}, "report", {"text": "x"}, 200_000, "run"),
        ({"report": ask(above_usd="0.50")}, "report", {"text": "x"}, 200_001, "ask"),
        ({"refund": ask(when=big, above_usd="9")}, "refund", {"amount": 51}, 0, "ask"),
        ({"refund": ask(when=big, above_usd="9")}, "refund", {"amount": 1}, 9_000_001, "ask"),
        ({"refund": ask(expires_in=60)}, "refund", {"amount": 1}, 0, "ask"),
        ({}, "ask_human", {"question": "which?"}, 0, "ask"),
        ({}, "ask_human", {"question": "which?", "choices": ["a", "b"]}, 0, "ask"),
        ({}, "ask_human", {"question": " "}, 0, "run"),
        ({}, "ask_human", {"question": "which?", "choices": []}, 0, "run"),
        ({}, "ask_human", {"question": "which?", "choices": "ab"}, 0, "run"),
        ({}, "nowhere", {}, 0, "run"),
    ],
)
def test_which_calls_wait(rules: Any, name: str, given: Json, spent: int, expected: str) -> None:
    assert decision(make_agent(TOOLS, approvals=rules), name, given, spent) == expected


def test_auto_approve_means_never() -> None:
    assert decision(make_agent(TOOLS, auto_approve=["refund"]), "refund", {"amount": 1}) == "run"


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ([], "a dictionary"),
        ({"erase": "always"}, "none of its tools"),
        ({"refund": "sometimes"}, "not 'sometimes'"),
        ({"refund": True}, "not True"),
        ({"refund": ask(when=3)}, "when is no function"),  # type: ignore[arg-type]
        ({"refund": ask(above_usd="-1")}, "above_usd"),
        ({"refund": ask(above_usd=0.5)}, "above_usd"),  # type: ignore[arg-type]
        ({"refund": ask(expires_in=0)}, "expires_in"),
        ({"refund": ask(expires_in=float("inf"))}, "expires_in"),
        ({"refund": ask(on_expiry="wait")}, "on_expiry"),  # type: ignore[arg-type]
        ({"refund": ask(requester_may_decide=None)}, "requester_may_decide"),  # type: ignore[arg-type]
        ({"ask_human": "never"}, "only a person"),
        ({"ask_human": ask(on_expiry="approve")}, "only a person"),
    ],
)
def test_rules_that_do_not_hold_fail_at_once(rules: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        make_agent(TOOLS, approvals=rules)


def test_a_tool_is_not_both_approved_and_asked_about() -> None:
    with pytest.raises(DefinitionError, match="auto_approve too"):
        make_agent(TOOLS, auto_approve=["refund"], approvals={"refund": "always"})


def test_a_definition_names_the_rules_and_a_worker_with_their_code_makes_them_again() -> None:
    rules: Any = {"refund": ask(when=big, expires_in=60, on_expiry="approve"), "report": "always"}
    agent = make_agent(TOOLS, approvals=rules)
    published = json.loads(json.dumps(agent.definition()["approvals"]))
    assert published["refund"] == {"when": "big", "expires_in": 60, "on_expiry": "approve"}
    assert rebuilt(published, rules) == rules
    for local in ({}, {"refund": "always"}, {"refund": ask(when=lambda input: True)}):
        with pytest.raises(KeyError):
            rebuilt(published, local)  # type: ignore[arg-type]
    pinned = rebuilt(published, {"refund": ask(when=big, expires_in=5)})["refund"]
    assert isinstance(pinned, Ask)
    assert pinned.expires_in == 60


def test_the_version_of_a_policy_follows_its_terms_and_the_agent() -> None:
    agents = [
        make_agent(TOOLS),
        make_agent(TOOLS, approvals={"refund": ask(expires_in=60)}),
        make_agent(TOOLS, instructions="Be rude."),
    ]
    assert len({Policy(agent).version("refund") for agent in agents}) == 3
    assert Policy(agents[0]).version("refund") == Policy(make_agent(TOOLS)).version("refund")


# ---- what the run makes of it


async def suspended(*asked: tuple[str, Json]) -> tuple[Log, ScriptedModel, list[Entry]]:
    """A run that waits for a person, and its journal."""
    log, journal = Log(), Journal(99, keeps_last=True)
    model = ScriptedModel([calls(*asked), says("done")])
    agent = make_agent([*log.tools, ask_human])
    outcome = await play(agent, make_ports(model, journal, approver=Policy(agent)), State([TASK]))
    assert isinstance(outcome, Suspended)
    assert (outcome.stop_reason, len(outcome.calls)) == ("approval", len(asked))
    return log, model, list(journal.entries)


async def go_on(log: Log, model: ScriptedModel, entries: list[Entry], *decided: ApprovalDecided) -> tuple[State, Any]:
    state = State.restore([TASK], reread([*entries, *decided]))
    agent, journal = make_agent([*log.tools, ask_human]), Journal(99, keeps_last=True)
    assert await play(agent, make_ports(model, journal, approver=Policy(agent)), state) == Completed("done")
    again = State.restore([TASK], reread([*entries, *decided, *journal.entries]))
    assert again.messages == state.messages
    return state, [entry for entry in journal.entries if isinstance(entry, ToolRequested)]


def result(state: State, at: int = 0) -> Json:
    found: Json = state.messages[2]["content"][at]
    return found


async def test_what_is_approved_runs() -> None:
    log, model, entries = await suspended(("erase", {"what": 1}))
    state, intents = await go_on(log, model, entries, ApprovalDecided("appr", "toolu_0_0", "erase", "approve", "k"))
    assert (log.began, [intent.input for intent in intents]) == ({"toolu_0_0": 1}, [{"what": 1}])
    assert "erased 1" in result(state)["content"]


async def test_what_is_edited_runs_as_edited_and_the_model_is_told() -> None:
    log, model, entries = await suspended(("erase", {"what": 1}))
    decided = ApprovalDecided("appr", "toolu_0_0", "erase", "approve", "k", input={"what": 2})
    state, intents = await go_on(log, model, entries, decided)
    assert [intent.input for intent in intents] == [{"what": 2}]
    said = result(state)["content"]
    assert "erased 2" in said
    assert '{"what": 2}' in said
    assert model.requests[-1].messages[1]["content"][0]["input"] == {"what": 1}  # what it asked for stays as it was


async def test_an_edited_call_that_died_goes_on_with_what_it_began_with() -> None:
    _, _, entries = await suspended(("erase", {"what": 0}), ("erase", {"what": 1}))
    decided = ApprovalDecided("appr", "toolu_0_1", "erase", "approve", "k", input={"what": 2})
    begun = ToolRequested("toolu_0_1", 1, "erase", {"what": 2}, "destructive")
    state = State.restore([TASK], reread([*entries, decided, begun]))
    state.reopen()
    assert [call["input"] for call in state.open_calls()] == [{"what": 0}, {"what": 2}]


@pytest.mark.parametrize(("reason", "told"), [("too much", "too much"), (None, "not allowed")])
async def test_what_is_denied_does_not_run_and_the_model_hears_why(reason: str | None, told: str) -> None:
    log, model, entries = await suspended(("erase", {"what": 1}))
    decided = ApprovalDecided("appr", "toolu_0_0", "erase", "deny", "k", reason)
    state, intents = await go_on(log, model, entries, decided)
    assert (log.began, intents) == ({}, [])
    assert (result(state)["is_error"], json.loads(result(state)["content"])["error"]["code"]) == (True, "denied")
    assert told in result(state)["content"]


async def test_an_answer_is_the_result_of_the_question() -> None:
    log, model, entries = await suspended(("ask_human", {"question": "which?"}))
    decided = ApprovalDecided("appr", "toolu_0_0", "ask_human", "approve", "k", answer="the blue one")
    state, intents = await go_on(log, model, entries, decided)
    assert "the blue one" in result(state)["content"]
    assert (result(state).get("is_error"), intents) == (None, [])


async def test_where_nobody_can_be_asked_the_model_is_told_so() -> None:
    model = ScriptedModel([calls(("ask_human", {"question": "which?"})), says("done")])
    state = State([TASK])
    assert await play(make_agent([ask_human]), make_ports(model), state) == Completed("done")
    assert "nobody_to_ask" in result(state)["content"]
