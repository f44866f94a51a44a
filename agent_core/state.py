"""The state of a run is the fold of its journal: the position is read off the history, never off a program counter."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from agent_core.entries import (
    ApprovalDecided,
    Compacted,
    Entry,
    GuardrailChecked,
    ModelCompleted,
    ModelFailed,
    ModelStarted,
    ModelSubmitted,
    ResultsCleared,
    StateChanged,
    ToolCompleted,
    ToolReconciled,
    ToolRequested,
)
from agent_core.errors import BudgetError
from agent_core.messages import blocks_of, cleared, is_blank, size_of, text_of, tool_uses, with_note, with_text
from agent_core.ports import Journal
from agent_core.redaction import BEGINNING
from agent_core.results import as_data
from agent_core.types import Json, Role, Usage

WHOLE = frozenset({"tool_use", "end_turn"})
"""Stop reasons of a reply whose tool calls may run. A reply that was cut off keeps none of its calls."""


SUMMARY = "[Summary of the work so far, which is no longer shown in full]\n"
QUESTION = "ask_human"
"""The tool whose results are a person's word, and no data from outside."""
RECENT_CALLS = 12
"""Among so many calls back, the same ones with the same results count as a loop."""
REPEATS = 3
"""So often may a call be made with the same result before the model is warned."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The tokens of a request and its reply, by the provider's count, when the conversation had `size` bytes."""

    model: str
    tokens: int
    size: int


@dataclass(slots=True)
class State:
    """A conversation and what it has used. Start it with the messages before the first turn, then fold entries in."""

    messages: list[Json]
    step: int = 0
    usage: Usage = field(default_factory=Usage)
    stop_reason: str | None = None
    intents: dict[str, ToolRequested] = field(default_factory=dict)
    results: dict[str, ToolCompleted] = field(default_factory=dict)
    decided: dict[str, ApprovalDecided] = field(default_factory=dict)
    """What was decided about calls of the last reply that waited for a person."""
    checks: dict[tuple[str, str], GuardrailChecked] = field(default_factory=dict)
    """What the checks of the input, and of the last reply, came to, by stage and name."""
    undone: set[str] = field(default_factory=set)
    """Calls of the last reply that were begun and, as was found out, did not happen: they may be begun again."""
    elapsed: float = 0.0
    """Seconds that earlier attempts spent running."""
    size: int = 0
    """Bytes of the conversation as JSON, kept up to date so that pricing a call costs no serialisation."""
    call: ModelStarted | None = None
    """The model call that was begun and has no end yet."""
    batch_id: str | None = None
    """The batch that it is with, if it is with one."""
    final: bool = False
    """The call last begun was told to be the last one."""
    allowed: int = 0
    """How many tokens its reply might have."""
    measured: Measured | None = None
    """What the provider last counted."""
    attached: int = 0
    """Upper bound of the tokens of the images and documents in the opening messages; none is counted by its bytes."""
    head: int = 0
    """How many messages open the conversation, the task being the last of them."""
    replaced: int = 0
    """How many messages of the session, which come before the task, a summary has taken the place of in this run."""
    task: Json | None = None
    """The task's message as it was before a summary was added to it."""
    phase: str = ""
    """Where a pattern has got to; empty before it begins, and for one without phases."""
    instruction: str = ""
    """What the model was told when the phase began."""
    role: Role = "executor"
    tools: bool = True
    """Whether the phase may call tools."""
    expects: Json | None = None
    """The schema of the phase's answer, None for a text."""
    visits: Counter[str] = field(default_factory=Counter)
    """How often each phase was begun."""
    answers: dict[str, str] = field(default_factory=dict)
    """The last answer of each phase that was left."""
    repairs: int = 0
    """How often the phase's answer was sent back, as it did not fit."""
    failures: Counter[str] = field(default_factory=Counter)
    """Failures in a row, by tool."""
    recent: list[str] = field(default_factory=list)
    """The last calls, each with its result, as digests."""
    warned: set[str] = field(default_factory=set)
    """Calls that the model was told not to repeat."""
    summary: str | None = None
    """What the summariser last wrote and nothing was done with yet."""
    summaries: int = 0
    """How often it was asked since the conversation was last made smaller."""
    covered: int = 0
    """How many messages it was to sum up when it was last asked."""

    def __post_init__(self) -> None:
        self.size = self.attached + sum(size_of(m) for m in self.messages)
        self.head = len(self.messages)

    @classmethod
    def restore(cls, messages: list[Json], entries: Iterable[Entry], elapsed: float = 0.0) -> State:
        """The state after the given entries."""
        state = cls(list(messages), elapsed=elapsed)
        for entry in entries:
            state.apply(entry)
        return state

    def apply(self, entry: Entry) -> None:
        """Folds one recorded entry in."""
        match entry:
            case ModelStarted() | ModelSubmitted() | ModelCompleted() | ModelFailed():
                self._apply_call(entry)
            case StateChanged():
                self._change(entry)
            case Compacted():
                self._compact(entry)
            case ResultsCleared():
                self._clear(frozenset(entry.call_ids))
            case _:
                self._apply_tool(entry)

    def _apply_call(self, entry: Entry) -> None:
        match entry:
            case ModelStarted():
                self.call, self.final, self.allowed = entry, entry.final, entry.max_tokens
                self.covered = entry.covers or self.covered
            case ModelSubmitted():
                self.batch_id = entry.batch_id
            case ModelFailed():
                self._settle(entry)
            case ModelCompleted(role="summariser"):
                self._settle(entry)
                whole = entry.stop_reason == "end_turn"
                self.summary = text_of({"role": "assistant", "content": entry.content}) if whole else ""
                self.summaries += 1
            case ModelCompleted():
                if self.step == 0:  # what came of summing the session up says nothing of the job's own part
                    self.summary, self.summaries = None, 0
                self.step = entry.step
                self.stop_reason = entry.stop_reason
                self._settle(entry)
                if content := [block for block in entry.content if not is_blank(block)]:
                    self._append({"role": "assistant", "content": content})
                self.measured = _measured(entry, self.size)
                self.intents, self.results, self.decided, self.undone = {}, {}, {}, set()
                self.checks = {key: found for key, found in self.checks.items() if found.stage == "input"}

    def _apply_tool(self, entry: Entry) -> None:
        match entry:
            case ToolRequested():
                self.intents[entry.call_id] = entry
                self.undone.discard(entry.call_id)
            case ToolCompleted():
                self.usage.tool_calls += 1
                self.usage.cost += entry.settled
                self.results[entry.call_id] = entry
                self._close_turn()
            case ToolReconciled(call_id=call_id, decision="not_happened"):
                self.undone.add(call_id)
            case GuardrailChecked():
                self._check(entry)
            case ApprovalDecided():
                self.decided[entry.call_id] = entry

    def input_bound(self, model: str, overhead: int) -> int:
        """An upper bound of the input tokens of the next request; `overhead` is the bytes of it around the messages.

        What the provider counted last, if the same model did, and one for each byte that it has not: no tokeniser in
        use makes more tokens than bytes.
        """
        if self.measured is None or self.measured.model != model:
            return self.size + overhead
        return self.measured.tokens + max(0, self.size - self.measured.size)

    def context_tokens(self) -> int:
        """About how many tokens the conversation has: as counted by the provider, and a third for each byte since."""
        if self.measured is None:
            return self.size // 3
        return self.measured.tokens + (self.size - self.measured.size) // 3

    @property
    def compactable(self) -> tuple[int, int]:
        """From where to where messages may give way: until the first reply the session's, from then on the job's."""
        return (0, self.head - 1) if self.step == 0 else (self.head, len(self.messages))

    @property
    def submitted(self) -> ModelStarted | None:
        """The model call that a batch has."""
        return None if self.batch_id is None else self.call

    def open_calls(self) -> list[Json]:
        """The tool calls of the last reply that may run and have no result yet, in its order, as they are to run."""
        if self.stop_reason not in WHOLE:
            return []
        return [self._as_edited(call) for call in self._last_calls() if call["id"] not in self.results]

    def open(self, text: str, attached: list[Json], tokens: int) -> None:
        """Gives the run its task: a text with images or documents, of so many tokens at most."""
        blocks = [*attached, {"type": "text", "text": text}]
        task: Json = {"role": "user", "content": blocks if attached else text}
        self.messages.append(task)  # a message of its own, whatever the session ends with: that is not the job's
        self.attached, self.size, self.head = tokens, self.size + tokens + size_of(task), len(self.messages)

    def say(self, text: str) -> None:
        """Adds what the user says, after which the model has the next word. Calls without a result are given up."""
        if calls := self._last_calls():
            self._append({"role": "user", "content": [self._result(call["id"]) for call in calls]})
        self._append({"role": "user", "content": text})
        self.stop_reason, self.results = None, {}

    def reopen(self) -> None:
        """Takes back a last reply that ended the run, so that the turn is taken again: what a retry begins with.

        What was decided about calls that have not begun does not outlast the end of the run, nor does what was held
        against the model and its tools.
        """
        self.decided = {}
        self.repairs, self.failures, self.recent, self.warned = 0, Counter(), [], set()
        self.checks = {key: found for key, found in self.checks.items() if found.verdict != "block"}
        if self.stop_reason in (None, "tool_use", "pause_turn") or self.open_calls():
            return
        if self.messages and self.messages[-1]["role"] == "assistant":
            self.size -= size_of(self.messages.pop())
            if self.measured is not None:  # what is said instead is none of what was counted
                self.measured = replace(self.measured, size=self.size)
        self.stop_reason = None

    def task_text(self) -> str:
        """The text of the newest message of the user's, which is the task before the first turn."""
        return next((b["text"] for b in reversed(blocks_of(self.messages[-1])) if b.get("type") == "text"), "")

    def checked_text(self, stage: str) -> str | None:
        """What the checks of a stage put in place of the text, if they did."""
        texts = [found.text for found in self.checks.values() if found.stage == stage and found.text is not None]
        return texts[-1] if texts else None

    def last_text(self) -> str | None:
        """The text of the newest reply to the task that has any: the result, or the partial result."""
        for message in reversed(self.messages[self.head :]):
            if message["role"] == "assistant" and (text := text_of(message)):
                return text
        return None

    def _change(self, entry: StateChanged) -> None:
        if entry.why == "phase":
            self.answers[self.phase] = self.last_text() or ""
            self.phase, self.instruction, self.repairs = entry.state, entry.say, 0
            self.role, self.tools, self.expects = entry.role, entry.tools, entry.expects
            self.visits[entry.state] += 1
        elif entry.why == "repair":
            self.repairs += 1
        elif entry.why == "loop":
            self.warned.update(self.repeated())
            self.recent = [told for n, told in enumerate(self.recent) if self.recent[n:].count(told) <= REPEATS]
        if entry.say:
            self.say(entry.say)

    def _note(self, call: Json, entry: ToolCompleted) -> None:
        """What is remembered of a call after its turn: whether its tool works, and whether it was made before."""
        if entry.call_id in self.intents:  # others were not let run
            self.failures[entry.name] = self.failures[entry.name] + 1 if entry.is_error else 0
        told = json.dumps([entry.name, call["input"], entry.content], sort_keys=True).encode("utf-8", "replace")
        self.recent = [*self.recent[1 - RECENT_CALLS :], hashlib.sha256(told).hexdigest()[:16]]

    def repeated(self, times: int = REPEATS) -> set[str]:
        """The calls that were made so often of late with the same result."""
        return {digest for digest, count in Counter(self.recent).items() if count >= times}

    def _compact(self, entry: Compacted) -> None:
        if self.step == 0:
            summary: Json = {"role": "user", "content": f"{SUMMARY}{entry.summary}"}
            self.replaced += entry.covers - bool(self.replaced)  # this summary takes the earlier one's place too
            self.head -= entry.covers - 1
            self._replace([summary, *self.messages[entry.covers :]])
            return
        self.task = self.task or self.messages[self.head - 1]
        said = f"\n\n[What you were last told]\n{self.instruction}" if self.instruction else ""
        head = [*self.messages[: self.head - 1], with_note([self.task], f"{SUMMARY}{entry.summary}{said}")[0]]
        self._replace([*head, *self.messages[self.head + entry.covers :]])

    def _clear(self, call_ids: frozenset[str]) -> None:
        self._replace([cleared(message, call_ids) for message in self.messages])

    def _replace(self, messages: list[Json]) -> None:
        self.messages, self.size, self.measured = messages, self.attached + sum(map(size_of, messages)), None
        self.summary, self.summaries = None, 0

    def _settle(self, entry: ModelCompleted | ModelFailed) -> None:
        self.call = self.batch_id = None
        self.usage.model_calls += 1
        self.usage.cost += entry.settled
        self.usage.count(entry.usage)

    def _check(self, entry: GuardrailChecked) -> None:
        self.checks[entry.stage, entry.check] = entry
        if entry.text is None or not self.messages:
            return
        *kept, last = self.messages
        # of a reply all texts are the answer; of the user's message the last one is the task
        self.messages = [*kept, with_text(last, entry.text, every=entry.stage == "output")]
        self.size += size_of(self.messages[-1]) - size_of(last)
        self.measured = None

    def _last_calls(self) -> list[Json]:
        return tool_uses(self.messages[-1]) if self.messages and self.messages[-1]["role"] == "assistant" else []

    def _as_edited(self, call: Json) -> Json:
        """The call with the input that a person gave it, if one did."""
        begun, ruling = self.intents.get(call["id"]), self.decided.get(call["id"])
        edited = begun.input if begun else ruling.input if ruling else None
        return call if edited is None or edited == call["input"] else {**call, "input": edited}

    def _close_turn(self) -> None:
        calls = self._last_calls()
        if calls and all(call["id"] in self.results for call in calls):
            for call in calls:  # in their order, not in that of their ends, which no second run would repeat
                self._note(call, self.results[call["id"]])
            self._append({"role": "user", "content": [self._result(call["id"]) for call in calls]})
            self.stop_reason = None

    def _result(self, call_id: str) -> Json:
        """The tool_result block of a call of the last reply."""
        block: Json = {"type": "tool_result", "tool_use_id": call_id}
        entry = self.results.get(call_id)
        if entry is None:
            return {**block, "content": "this call was given up; nobody knows whether it ran", "is_error": True}
        call = next(call for call in self._last_calls() if call["id"] == call_id)
        made = self._as_edited(call)
        note = "" if made is call else f"[A person changed this call. It was made with {json.dumps(made['input'])}.]\n"
        if entry.is_error:  # in the platform's words
            return {**block, "content": note + entry.content, "is_error": True}
        told = entry.content if entry.name == QUESTION else as_data(entry.name, entry.content)
        return {**block, "content": note + told}

    def _append(self, message: Json) -> None:
        if message["role"] == "user" and self.messages and self.messages[-1]["role"] == "user":
            before = self.messages.pop()  # two messages of the user's in a row are one
            self.size -= size_of(before)
            message = {"role": "user", "content": [*blocks_of(before), *blocks_of(message)]}
        self.messages.append(message)
        self.size += size_of(message)


async def commit(state: State, journal: Journal, *entries: Entry) -> None:
    """Records entries as they are to be kept, and folds those in: a run goes on from them as one that is resumed would.

    A cancellation that comes meanwhile is raised after both are done. Raises what `Journal.record` raises; the entries
    are then not folded in.
    """
    entries = tuple(map(journal.kept, entries))
    writing = asyncio.ensure_future(journal.record(*entries))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        if not isinstance(writing.exception(), BudgetError):  # a refusal wrote nothing, and must not hide this
            writing.result()
            _fold(state, entries)
        raise
    _fold(state, entries)


def _fold(state: State, entries: Iterable[Entry]) -> None:
    for entry in entries:
        state.apply(entry)


def _measured(reply: ModelCompleted, size: int) -> Measured | None:
    counted = Usage()
    counted.count(reply.usage)
    if not counted.tokens or BEGINNING in json.dumps(reply.content):  # a mark may have more tokens than its secret had
        return None
    return Measured(reply.model, counted.tokens, size)
