"""The journal's entries: what the loop records, in the order in which it happens. As plain data, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from agent_core.types import Effect, Json, Role, Verdict


@dataclass(frozen=True, slots=True)
class ModelStarted:
    """An attempt at a model call is about to be made; its worst case is reserved by the act of recording it."""

    TYPE: ClassVar[str] = "model.started"
    call_id: str
    step: int
    model: str
    reserved: int
    tokens: int = 0
    """Reserved with it: an upper bound of the tokens of input and output."""
    max_tokens: int = 0
    price_version: str = ""
    role: Role = "executor"
    final: bool = False
    """The limits leave room for no further call like it: the model was told to conclude."""
    server: str = ""
    """Which server was asked, by its name in the settings; empty for the worker's own."""
    covers: int = 0
    """Of a summary: how many messages it is of; before the first reply those of the session, and else the job's own."""


@dataclass(frozen=True, slots=True)
class ModelSubmitted:
    """A batch has the call that was just begun: nobody need wait for its end, and nobody makes the call again."""

    TYPE: ClassVar[str] = "model.submitted"
    call_id: str
    step: int
    batch_id: str


@dataclass(frozen=True, slots=True)
class ModelCompleted:
    """A whole reply. Recording it settles the reservation and makes the turn permanent."""

    TYPE: ClassVar[str] = "model.completed"
    call_id: str
    step: int
    model: str
    content: list[Json]
    stop_reason: str
    usage: Json | None
    price_version: str
    reserved: int
    settled: int
    reason: str
    seconds: float = 0.0
    role: Role = "executor"


@dataclass(frozen=True, slots=True)
class ModelFailed:
    """An attempt that gave no whole reply: refused, broken off or cancelled. Its reservation is settled as well."""

    TYPE: ClassVar[str] = "model.failed"
    call_id: str
    step: int
    model: str
    code: str
    message: str
    usage: Json | None
    price_version: str
    reserved: int
    settled: int
    reason: str
    seconds: float = 0.0
    role: Role = "executor"


@dataclass(frozen=True, slots=True)
class ToolRequested:
    """The intent to run a tool call, recorded before it runs."""

    TYPE: ClassVar[str] = "tool.requested"
    call_id: str
    step: int
    name: str
    input: Json
    effect: Effect
    reserved: int = 0
    """The tool's own price, reserved by the act of recording this."""


@dataclass(frozen=True, slots=True)
class ToolCompleted:
    """The result of a tool call, as the model will see it. Recording it settles the tool's price, if it has one."""

    TYPE: ClassVar[str] = "tool.completed"
    call_id: str
    step: int
    name: str
    content: str
    is_error: bool
    seconds: float = 0.0
    settled: int = 0


@dataclass(frozen=True, slots=True)
class ToolReconciled:
    """What became of a call that was interrupted between its intent and its result, and who said so.

    A call that happened has its result beside this entry; one that did not may be run, under a new intent.
    """

    TYPE: ClassVar[str] = "tool.reconciled"
    call_id: str
    step: int
    name: str
    decision: Verdict
    by: Literal["reconcile", "person"]


@dataclass(frozen=True, slots=True)
class ApprovalDecided:
    """What became of a tool call that waited for a person. Written when it is decided, not by the run.

    A call that is approved runs with `input`, unless that is None, in place of its own; `answer` is that to a question.
    """

    TYPE: ClassVar[str] = "approval.decided"
    approval_id: str
    call_id: str
    name: str
    decision: Literal["approve", "deny"]
    by: str
    reason: str | None = None
    input: Json | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The run goes on in another way: a pattern's next phase, an answer to be repaired, a warning.

    `state` names the phase, `say` is what the platform tells the model, as the user would. The turns of the phase are
    taken in `role`, with its model, without tools when `tools` is false, and end in a JSON value of the schema
    `expects` unless that is None. `why` is `phase` when one begins, `repair` when an answer does not fit, `loop` for a
    warning.
    """

    TYPE: ClassVar[str] = "state.changed"
    state: str
    step: int = 0
    why: str = ""
    say: str = ""
    role: Role = "executor"
    tools: bool = True
    expects: Json | None = None


@dataclass(frozen=True, slots=True)
class Compacted:
    """The oldest messages were replaced by a summary of them; `covers` is how many.

    At step 0 those were of the session's conversation, and else of the job's own, after its task.
    """

    TYPE: ClassVar[str] = "context.compacted"
    step: int
    summary: str
    covers: int


@dataclass(frozen=True, slots=True)
class GuardrailChecked:
    """What a check of the job's input or answer came to, or what a person said whom it asked.

    `detail` is the reason or the question; `text` is what takes the place of the text that was checked.
    """

    TYPE: ClassVar[str] = "guardrail.checked"
    stage: Literal["input", "output"]
    check: str
    step: int
    verdict: Literal["allow", "block", "redact", "ask"]
    detail: str = ""
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ResultsCleared:
    """Old tool results were taken out of the conversation to make room; the journal has them."""

    TYPE: ClassVar[str] = "context.cleared"
    step: int
    call_ids: list[str]


Entry = (
    ModelStarted
    | ModelSubmitted
    | ModelCompleted
    | ModelFailed
    | ToolRequested
    | ToolCompleted
    | ToolReconciled
    | ApprovalDecided
    | StateChanged
    | Compacted
    | ResultsCleared
    | GuardrailChecked
)
ENTRY_TYPES: dict[str, type[Entry]] = {
    cls.TYPE: cls
    for cls in (
        ModelStarted,
        ModelSubmitted,
        ModelCompleted,
        ModelFailed,
        ToolRequested,
        ToolCompleted,
        ToolReconciled,
        ApprovalDecided,
        StateChanged,
        Compacted,
        ResultsCleared,
        GuardrailChecked,
    )
}
_FIELDS = {cls: tuple(f.name for f in fields(cls)) for cls in ENTRY_TYPES.values()}


def entry_to_json(entry: Entry) -> Json:
    """The entry's fields as plain JSON data; its type stands beside it, not in it."""
    return {name: getattr(entry, name) for name in _FIELDS[type(entry)]}


def entry_from_json(type_: str, data: Json) -> Entry | None:
    """The entry of a journal line, or None for a line that is not the loop's (state changes and the like).

    Fields that this version does not know are left out. Raises TypeError when one that it needs is missing.
    """
    cls = ENTRY_TYPES.get(type_)
    return cls(**{name: data[name] for name in _FIELDS[cls] if name in data}) if cls else None
