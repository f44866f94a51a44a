"""Checks of what goes into a job and of what comes out: functions that let a text pass, change it, stop the job or ask
a person.

A check has one result in a job's life, which is recorded: a run that is resumed goes by it and does not check again. A
check that fails, or takes too long, blocks.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent_core.entries import GuardrailChecked
from agent_core.outcomes import Completed, Outcome, Stopped, Suspended
from agent_core.ports import Journal
from agent_core.state import State, commit
from agent_core.types import Json

Stage = Literal["input", "output"]
CHECK_SECONDS = 30.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Allow:
    """The text may pass as it is."""


@dataclass(frozen=True, slots=True)
class Block:
    """The job ends here. An answer that is blocked is not the job's output."""

    reason: str


@dataclass(frozen=True, slots=True)
class Redact:
    """The job goes on with this text instead. An answer that is a JSON value is given and taken as its JSON."""

    text: str


@dataclass(frozen=True, slots=True)
class AskPerson:
    """The job waits for a person, who lets the text pass, edits or blocks it."""

    question: str


Verdict = Allow | Block | Redact | AskPerson
CheckFunction = Callable[[str, Any], Verdict | Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Check:
    """A function, async or not, that is given a text and the job's input, and returns what is to become of the text."""

    stage: Stage
    function: CheckFunction = field(repr=False)

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def definition(self) -> Json:
        """The check as an agent's definition has it: the worker has its code."""
        return {"stage": self.stage, "name": self.name}


def input_check(function: CheckFunction) -> Check:
    """Checks the job's first message before the model sees it."""
    return Check("input", function)


def output_check(function: CheckFunction) -> Check:
    """Checks the final answer before it becomes the job's output."""
    return Check("output", function)


def fault_of(guardrails: object) -> str | None:
    """What is wrong with an agent's `guardrails`."""
    if not isinstance(guardrails, list | tuple) or not all(isinstance(check, Check) for check in guardrails):
        return "expected a list of input_check(…) and output_check(…)"
    names = [(check.stage, check.name) for check in guardrails]
    twice = next((name for stage, name in names if names.count((stage, name)) > 1), None)
    return twice and f"two checks of one stage are named {twice!r}"


def rebuilt(published: Sequence[Json], local: Iterable[Check]) -> list[Check]:
    """The checks that a published definition names. Raises KeyError when one is missing."""
    known = {(check.stage, check.name): check for check in local}
    return [known[item["stage"], item["name"]] for item in published]


@dataclass(frozen=True, slots=True)
class Guard:
    """The checks of a run. `input` is the job's, which every check is given."""

    checks: Sequence[Check]
    state: State
    journal: Journal
    input: Any

    async def around(self, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """The outcome of a run, after the checks of its input and with those of its answer.

        Raises what the run and `Journal.record` raise.
        """
        if held_up := await self._pass("input", self.state.task_text()):
            return held_up
        outcome = await run()
        if not isinstance(outcome, Completed) or not any(check.stage == "output" for check in self.checks):
            return outcome
        text = outcome.output if isinstance(outcome.output, str) else json.dumps(outcome.output, ensure_ascii=False)
        if held_up := await self._pass("output", text):
            return held_up
        fresh = self.state.checked_text("output")
        if fresh is None:
            return outcome
        try:
            return replace(outcome, output=fresh if isinstance(outcome.output, str) else json.loads(fresh))
        except ValueError:
            return _blocked("output", "a check", "the answer was to be JSON, and what took its place is not")

    async def _pass(self, stage: Stage, text: str) -> Stopped | Suspended | None:
        """Takes a text through the checks of a stage, in order; returns what keeps it from passing."""
        for check in self.checks:
            if check.stage != stage:
                continue
            found = self.state.checks.get((stage, check.name))
            if found is None or found.verdict == "ask":
                fresh = await self._result(check, text, found)
                if fresh is not found:
                    await commit(self.state, self.journal, fresh)
                found = self.state.checks[stage, check.name]
            if found.verdict == "ask":
                return Suspended("approval", [_call(found, text)])
            if found.verdict == "block":
                return _blocked(stage, check.name, found.detail)
            text = text if found.text is None else found.text
        return None

    async def _result(self, check: Check, text: str, asked: GuardrailChecked | None) -> GuardrailChecked:
        """What is to become of the text: by a person's decision where one was asked, else by the check."""
        about = (check.stage, check.name, self.state.step)
        if asked is None:
            match await _verdict(check, text, self.input):
                case Block(reason):
                    return GuardrailChecked(*about, "block", reason)
                case Redact(fresh):
                    return GuardrailChecked(*about, "redact", text=fresh)
                case AskPerson(question):
                    return GuardrailChecked(*about, "ask", question)
                case _:
                    return GuardrailChecked(*about, "allow")
        ruling = self.state.decided.get(_call_id(asked))
        if ruling is None:
            return asked
        if ruling.decision == "deny":
            return GuardrailChecked(*about, "block", ruling.reason or "a person did not let it pass")
        edited = str((ruling.input or {}).get("text", text))
        return GuardrailChecked(*about, "allow") if edited == text else GuardrailChecked(*about, "redact", text=edited)


async def _verdict(check: Check, text: str, input: Any) -> Verdict:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            if inspect.iscoroutinefunction(check.function):
                found = await check.function(text, input)
            else:
                found = await asyncio.to_thread(check.function, text, input)
                found = await found if inspect.isawaitable(found) else found
    except Exception as exc:  # who cannot check must let nothing through
        log.warning("the %s check %s failed: it blocks", check.stage, check.name, exc_info=True)
        return Block(f"the check failed with {type(exc).__name__}")
    known = isinstance(found, Verdict)
    return found if known else Block(f"the check returned {type(found).__name__}, which is no verdict")


def _call(asked: GuardrailChecked, text: str) -> Json:
    """The question as a call that waits for approval: its input may be edited, as that of a tool call may."""
    given = {"question": asked.detail, "text": text}
    return {"id": _call_id(asked), "name": f"guardrail_{asked.check}", "input": given}


def _call_id(asked: GuardrailChecked) -> str:
    return f"guardrail_{asked.stage}_{asked.check}_{asked.step}"


def _blocked(stage: Stage, name: str, reason: str) -> Stopped:
    return Stopped("guardrail_blocked", f"the {stage} check {name} blocked it: {reason}")
