"""The state of a run is the fold of its journal: the position is read off the history, never off a program counter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from agent_core.errors import BudgetError
from agent_core.ports import Journal
from agent_core.types import (
    ApprovalRequested,
    Entry,
    Json,
    ModelCompleted,
    ModelFailed,
    ModelStarted,
    ModelSubmitted,
    ToolCompleted,
    ToolReconciled,
    ToolRequested,
    Usage,
)

WHOLE = frozenset({"tool_use", "end_turn"})
"""Stop reasons of a reply whose tool calls may run. A reply that was cut off keeps none of its calls."""


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
    asked: set[str] = field(default_factory=set)
    """Calls of the last reply about which a person was asked."""
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
    measured: Measured | None = None
    """What the provider last counted."""

    def __post_init__(self) -> None:
        self.size = sum(_size(m) for m in self.messages)

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
            case ModelCompleted():
                self.step = entry.step
                self.stop_reason = entry.stop_reason
                self._settle(entry)
                if content := [block for block in entry.content if not _is_blank(block)]:
                    self._append({"role": "assistant", "content": content})
                self.measured = _measured(entry, self.size)
                self.intents, self.results, self.asked, self.undone = {}, {}, set(), set()
            case ModelFailed():
                self._settle(entry)
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
            case ApprovalRequested():
                self.asked.add(entry.call_id)
            case ModelStarted():
                self.call, self.final = entry, entry.final
            case ModelSubmitted():
                self.batch_id = entry.batch_id

    def input_bound(self, model: str, overhead: int) -> int:
        """An upper bound of the input tokens of the next request; `overhead` is the bytes of it around the messages.

        What the provider counted last, if the same model did, and one for each byte that it has not: no tokeniser in
        use makes more tokens than bytes.
        """
        if self.measured is None or self.measured.model != model:
            return self.size + overhead
        return self.measured.tokens + max(0, self.size - self.measured.size)

    @property
    def submitted(self) -> ModelStarted | None:
        """The model call that a batch has."""
        return None if self.batch_id is None else self.call

    def open_calls(self) -> list[Json]:
        """The tool calls of the last reply that may run and have no result yet, in its order."""
        if self.stop_reason not in WHOLE:
            return []
        return [call for call in self._last_calls() if call["id"] not in self.results]

    def say(self, text: str) -> None:
        """Adds what the user says, after which the model has the next word. Calls without a result are given up."""
        if calls := self._last_calls():
            self._append({"role": "user", "content": [self._result(call["id"]) for call in calls]})
        self._append({"role": "user", "content": text})
        self.stop_reason = None

    def reopen(self) -> None:
        """Takes back a last reply that ended the run, so that the turn is taken again: what a retry begins with."""
        if self.stop_reason in (None, "tool_use", "pause_turn") or self.open_calls():
            return
        if self.messages and self.messages[-1]["role"] == "assistant":
            self.size -= _size(self.messages.pop())
            if self.measured is not None:  # what is said instead is none of what was counted
                self.measured = replace(self.measured, size=self.size)
        self.stop_reason = None

    def last_text(self) -> str | None:
        """The text of the newest reply that has any: the result, or the partial result."""
        for message in reversed(self.messages):
            if message["role"] == "assistant" and (text := text_of(message)):
                return text
        return None

    def _settle(self, entry: ModelCompleted | ModelFailed) -> None:
        self.call = self.batch_id = None
        self.usage.model_calls += 1
        self.usage.cost += entry.settled
        self.usage.count(entry.usage)

    def _last_calls(self) -> list[Json]:
        return tool_uses(self.messages[-1]) if self.messages and self.messages[-1]["role"] == "assistant" else []

    def _close_turn(self) -> None:
        calls = self._last_calls()
        if calls and all(call["id"] in self.results for call in calls):
            self._append({"role": "user", "content": [self._result(call["id"]) for call in calls]})
            self.stop_reason = None

    def _result(self, call_id: str) -> Json:
        """The tool_result block of a call of the last reply."""
        block: Json = {"type": "tool_result", "tool_use_id": call_id}
        entry = self.results.get(call_id)
        if entry is None:
            return {**block, "content": "this call was given up; nobody knows whether it ran", "is_error": True}
        return {**block, "content": entry.content, **({"is_error": True} if entry.is_error else {})}

    def _append(self, message: Json) -> None:
        if message["role"] == "user" and self.messages and self.messages[-1]["role"] == "user":
            before = self.messages.pop()  # two messages of the user's in a row are one
            self.size -= _size(before)
            message = {"role": "user", "content": [*_blocks(before), *_blocks(message)]}
        self.messages.append(message)
        self.size += _size(message)


async def commit(state: State, journal: Journal, *entries: Entry) -> None:
    """Records entries and folds them in. A cancellation that comes meanwhile is raised after both are done.

    Raises what `Journal.record` raises; the entries are then not folded in.
    """
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


def with_note(messages: list[Json], text: str) -> list[Json]:
    """The messages with a text added to the last one, which is the user's; the ones given stay as they are."""
    *earlier, last = messages
    return [*earlier, {**last, "content": [*_blocks(last), {"type": "text", "text": text}]}]


def tool_uses(message: Json) -> list[Json]:
    """The tool_use blocks of a message."""
    return [b for b in _blocks(message) if b.get("type") == "tool_use"]


def text_of(message: Json) -> str:
    """The text blocks of a message, joined."""
    return "".join(b["text"] for b in _blocks(message) if b.get("type") == "text")


def _blocks(message: Json) -> list[Json]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _measured(reply: ModelCompleted, size: int) -> Measured | None:
    counted = Usage()
    counted.count(reply.usage)
    return Measured(reply.model, counted.tokens, size) if counted.tokens else None


def _is_blank(block: Json) -> bool:
    """Whether it is a text block without text: models send it now and then, and the Messages API takes none back."""
    return block.get("type") == "text" and not block["text"].strip()


def _size(message: Json) -> int:
    return len(json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass"))
