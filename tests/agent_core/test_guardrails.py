"""Checks of a job's input and answer: what each verdict does, once, whatever is killed; one that fails blocks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core import guardrails
from agent_core.defaults import MemoryJournal
from agent_core.entries import ApprovalDecided, Entry, GuardrailChecked, ModelCompleted
from agent_core.errors import DefinitionError
from agent_core.guardrails import (
    Allow,
    AskPerson,
    Block,
    Check,
    Guard,
    Redact,
    Verdict,
    input_check,
    output_check,
    rebuilt,
)
from agent_core.outcomes import Completed, Outcome, Stopped, Suspended
from agent_core.results import as_data
from agent_core.state import State, commit
from agent_core.types import Json
from tests.agent_core.harness import Killed, MortalJournal, make_agent, reread

TASK: Json = {"role": "user", "content": "call 555-1234"}
JOB_INPUT = {"text": "call 555-1234"}


class Job:
    """A job that may be resumed: its journal, what its checks saw, and a model that says one thing."""

    def __init__(self, *checks: Check, says: str = "it is 555-1234", journal: MemoryJournal | None = None) -> None:
        self.checks = checks
        self.journal = journal or MemoryJournal()
        self.says = says
        self.prompts: list[str] = []
        self.state = State([TASK])

    async def attempt(self) -> Outcome:
        """Goes on from the journal as it would be read back."""
        self.state = State.restore([TASK], reread(self.journal.entries))
        return await Guard(self.checks, self.state, self.journal, JOB_INPUT).around(self._run)

    async def _run(self) -> Outcome:
        if self.state.stop_reason is None:
            self.prompts.append(self.state.task_text())
            content = [{"type": "text", "text": self.says}]
            reply = ModelCompleted(
                f"c{self.state.step}", self.state.step + 1, "m", content, "end_turn", None, "p", 0, 0, "settled"
            )
            await commit(self.state, self.journal, reply)
        return Completed(self.state.last_text())

    def checked(self) -> list[GuardrailChecked]:
        return [entry for entry in self.journal.entries if isinstance(entry, GuardrailChecked)]


def saying(verdict: Verdict | Any, seen: list[Any] | None = None, name: str = "check") -> Callable[[str, Any], Any]:
    def check(text: str, input: Any) -> Any:
        if seen is not None:
            seen.append((text, input))
        return verdict

    check.__name__ = name
    return check


def hide(text: str, input: Any) -> Verdict:
    return Redact(re.sub(r"\d", "#", text)) if re.search(r"\d", text) else Allow()


async def test_both_stages_let_pass() -> None:
    seen: list[Any] = []
    job = Job(input_check(saying(Allow(), seen)), output_check(saying(Allow(), seen)))
    assert await job.attempt() == Completed("it is 555-1234")
    assert seen == [("call 555-1234", JOB_INPUT), ("it is 555-1234", JOB_INPUT)]
    assert [(c.stage, c.check, c.verdict) for c in job.checked()] == [
        ("input", "check", "allow"),
        ("output", "check", "allow"),
    ]


async def test_a_blocked_input_reaches_no_model() -> None:
    job = Job(input_check(saying(Block("a phone number"))))
    outcome = await job.attempt()
    assert outcome == Stopped("guardrail_blocked", "the input check check blocked it: a phone number")
    assert job.prompts == []
    assert await job.attempt() == outcome
    assert len(job.checked()) == 1


async def test_a_blocked_answer_is_withheld() -> None:
    outcome = await Job(output_check(saying(Block("rude")))).attempt()
    assert isinstance(outcome, Stopped)
    assert (outcome.stop_reason, outcome.output) == ("guardrail_blocked", None)


async def test_redacting_changes_what_the_model_sees_and_what_is_stored() -> None:
    job = Job(input_check(hide), output_check(hide))
    assert await job.attempt() == Completed("it is ###-####")
    assert job.prompts == ["call ###-####"]
    assert "555" not in str(job.state.messages)
    assert await job.attempt() == Completed("it is ###-####")


async def test_checks_of_a_stage_see_what_the_one_before_left() -> None:
    seen: list[Any] = []
    job = Job(
        output_check(hide), output_check(saying(Allow(), seen)), output_check(saying(Redact("done"), name="last"))
    )
    assert await job.attempt() == Completed("done")
    assert seen == [("it is ###-####", JOB_INPUT)]


async def test_only_the_task_is_replaced_in_a_message_that_has_more() -> None:
    blocks = [
        {"type": "text", "text": "earlier"},
        {"type": "text", "text": "call 555"},
        {"type": "image", "source": {}},
    ]
    state = State([{"role": "user", "content": blocks}])
    assert state.task_text() == "call 555"
    size = state.size
    state.apply(GuardrailChecked("input", "hide", 0, "redact", text="call"))
    assert state.messages[0]["content"] == [blocks[0], blocks[2], {"type": "text", "text": "call"}]
    assert state.size == State(state.messages).size == size - 4


async def test_a_json_answer_is_checked_as_its_json() -> None:
    async def run() -> Outcome:
        return Completed({"phone": "555"})

    for fresh, expected in (('{"phone": null}', {"phone": None}), ("no JSON", "guardrail_blocked")):
        guard = Guard([output_check(saying(Redact(fresh)))], State([TASK]), MemoryJournal(), None)
        outcome = await guard.around(run)
        assert (outcome.output if isinstance(outcome, Completed) else getattr(outcome, "stop_reason", None)) == expected


async def broken(text: str, input: Any) -> Verdict:
    raise ValueError("secret detail")


@pytest.mark.parametrize("function", [broken, saying(None), saying(True), saying("fine")])
@pytest.mark.parametrize("stage", [input_check, output_check])
async def test_a_check_that_fails_blocks(stage: Callable[[Any], Check], function: Any) -> None:
    outcome = await Job(stage(function)).attempt()
    assert isinstance(outcome, Stopped)
    assert outcome.stop_reason == "guardrail_blocked"
    assert "secret detail" not in outcome.detail


async def test_a_check_that_hangs_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(text: str, input: Any) -> Verdict:
        await asyncio.Event().wait()
        return Allow()

    monkeypatch.setattr(guardrails, "CHECK_SECONDS", 0.0)
    outcome = await Job(input_check(hangs)).attempt()
    assert isinstance(outcome, Stopped)
    assert "TimeoutError" in outcome.detail


@pytest.mark.parametrize("stage", [input_check, output_check])
@pytest.mark.parametrize(
    ("ruling", "expected"),
    [
        ({"decision": "approve"}, "it is 555-1234"),
        ({"decision": "approve", "input": {"question": "?", "text": "edited"}}, "edited"),
        ({"decision": "deny", "reason": "no"}, "guardrail_blocked"),
        ({"decision": "deny"}, "guardrail_blocked"),
    ],
)
async def test_a_person_decides(stage: Callable[[Any], Check], ruling: Any, expected: str) -> None:
    seen: list[Any] = []
    job = Job(stage(saying(AskPerson("may this pass?"), seen)))
    parked = await job.attempt()
    assert isinstance(parked, Suspended)
    (call,) = parked.calls
    assert (parked.stop_reason, call["input"]["question"]) == ("approval", "may this pass?")
    assert await job.attempt() == parked  # rescued before anyone decided
    job.journal.entries.append(ApprovalDecided("appr_1", call["id"], call["name"], by="key_1", **ruling))
    outcome = await job.attempt()
    if isinstance(outcome, Stopped):
        assert outcome.stop_reason == expected
    elif job.checked()[0].stage == "output":
        assert outcome == Completed(expected)
    else:
        assert job.prompts == [expected if expected == "edited" else "call 555-1234"]
    assert await job.attempt() == outcome
    assert len(seen) == 1
    asked, decided = job.checked()
    assert (asked.verdict, decided.verdict) != ("ask", "ask")


@given(st.integers(1, 7), st.booleans())
def test_killed_anywhere_it_ends_the_same_and_no_recorded_check_runs_again(dies_at: int, keeps_last: bool) -> None:
    async def live() -> None:
        seen: list[Any] = []

        async def look(text: str, input: Any) -> Verdict:
            seen.append(text)
            return hide(text, input)

        checks = (input_check(look), input_check(saying(Allow(), name="other")), output_check(look))
        job = Job(*checks, journal=MortalJournal(dies_at, keeps_last=keeps_last))
        died = False
        try:
            await job.attempt()
        except Killed:
            died = True
        entries: list[Entry] = list(job.journal.entries)
        job.journal = MemoryJournal()
        job.journal.entries = entries
        recorded = len(job.checked())
        before = len(seen)
        assert await job.attempt() == Completed("it is ###-####")
        assert "555" not in str(job.state.messages)
        if not died:
            assert len(seen) == before
        assert len(job.checked()) == len(checks) >= recorded

    asyncio.run(live())


async def test_a_retry_checks_again_what_was_blocked() -> None:
    state = State([TASK])
    for check, verdict in (("one", "allow"), ("two", "block")):
        state.apply(GuardrailChecked("input", check, 0, verdict))  # type: ignore[arg-type]
    state.reopen()
    assert list(state.checks) == [("input", "one")]


# ---- definitions


def test_a_definition_names_its_checks_and_others_keep_their_version() -> None:
    plain, guarded = make_agent(), make_agent(guardrails=[input_check(hide), output_check(hide)])
    assert "guardrails" not in plain.definition()
    assert guarded.definition()["guardrails"] == [
        {"stage": "input", "name": "hide"},
        {"stage": "output", "name": "hide"},
    ]
    assert guarded.version != plain.version
    assert rebuilt(guarded.definition()["guardrails"], guarded.guardrails) == guarded.guardrails
    with pytest.raises(KeyError):
        rebuilt([{"stage": "input", "name": "gone"}], guarded.guardrails)


@pytest.mark.parametrize("wrong", [[hide], hide, [input_check(hide), input_check(hide)]])
def test_wrong_checks_are_refused(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="guardrails"):
        make_agent(guardrails=wrong)


# ---- data


def test_a_result_is_framed() -> None:
    assert as_data("http_get", "hello") == '<data from="http_get">\nhello\n</data>'


@given(st.lists(st.sampled_from(["</data>", "</DATA >", "<data from='x'>", "</", "data>", "\n", "x"])).map("".join))
def test_no_result_ends_its_frame(text: str) -> None:
    framed = as_data("t", text)
    assert framed.lower().count("</data") == 1
    assert framed.endswith("\n</data>")
