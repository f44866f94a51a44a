"""The plain types that every package shares: budget, usage, the journal's entries and the outcomes of a run.

Money is integer micro-dollars (1 USD = 1,000,000) everywhere inside; `usd` turns it into the decimal string of the
public surface. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, ClassVar, Literal

Json = dict[str, Any]
Effect = Literal["read", "write", "destructive"]
Verdict = Literal["happened", "not_happened"]
AtLimit = Literal["stop", "pause", "warn"]
Unit = Literal["usd", "tokens"]
Role = Literal["planner", "executor", "validator", "summariser", "router"]

MICROS = 1_000_000


def usd(micros: int) -> str:
    """The decimal string of an amount: `usd(12_300) == "0.0123"`."""
    sign, amount = ("-", -micros) if micros < 0 else ("", micros)
    whole, rest = divmod(amount, MICROS)
    return f"{sign}{whole}.{rest:06d}".rstrip("0").rstrip(".") if rest else f"{sign}{whole}"


def micros(amount: str | int | Decimal) -> int:
    """Micro-dollars of a decimal amount in US dollars, rounded half to even at the sixth place."""
    return int((Decimal(amount) * MICROS).to_integral_value(ROUND_HALF_EVEN))


def is_amount(value: object) -> bool:
    """Whether it is a decimal string of US dollars above 0."""
    try:
        amount = Decimal(value) if isinstance(value, str) else Decimal(0)
    except InvalidOperation:
        return False
    return amount.is_finite() and amount > 0


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard limits of one job. None is no limit of that kind.

    `usd` is a decimal string in US dollars, `tokens` counts input and output together, `steps` counts model turns and
    `seconds` counts the time spent running (not queued or parked), over all attempts. Dollars and tokens include those
    of child jobs; at their limit the job stops, is paused until it is raised, or goes on with a warning (`at_limit`).
    """

    usd: str | None = "1.00"
    tokens: int | None = None
    steps: int | None = 25
    seconds: float | None = 3600
    at_limit: AtLimit = "stop"

    @property
    def micros(self) -> int | None:
        return None if self.usd is None else micros(self.usd)

    def override(self, changes: Mapping[str, Any]) -> Budget:
        """This budget with the given fields replaced."""
        return Budget(**{f.name: changes.get(f.name, getattr(self, f.name)) for f in fields(self)})

    def to_json(self) -> Json:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(slots=True)
class Usage:
    """What a job has used so far. Token counts are the provider's; `cost` is in micro-dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    cost: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens

    def count(self, raw: Mapping[str, Any] | None) -> None:
        """Adds one reply's usage as the Messages API reports it."""
        for name, key in USAGE_FIELDS:
            setattr(self, name, getattr(self, name) + int((raw or {}).get(key) or 0))


USAGE_FIELDS = (
    ("input_tokens", "input_tokens"),
    ("output_tokens", "output_tokens"),
    ("cache_read_tokens", "cache_read_input_tokens"),
    ("cache_write_tokens", "cache_creation_input_tokens"),
)
"""Our name of each token count, and the Messages API's."""


# ---- the journal's entries: what the loop records, in the order in which it happens


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
    """Of a summary: how many messages after the opening ones it is of."""


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
    """The conversation's middle was replaced by a summary of it.

    `covers` is how many messages after the opening ones gave way.
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


# ---- how a run ends


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a reservation does not fit. Amounts are micro-dollars or tokens, by `unit`.

    `left` is the room in the limit that refused; `room_micros` and `room_tokens` are the least of all limits, None
    without any. `held_by` names the budget, and `until_ms` says when its window ends (None: never).
    """

    scope: str
    period: str
    at_limit: AtLimit
    unit: Unit
    limit: int
    left: int
    room_micros: int | None = None
    room_tokens: int | None = None
    held_by: str = ""
    until_ms: int | None = None
    busy: bool = False
    """Other calls' reservations alone are in the way: there will be room when they are settled."""

    @property
    def detail(self) -> str:
        """For people."""
        whose = "the job's" if self.scope == "job" else f"the {self.scope}"
        amounts = [usd(n) + " USD" if self.unit == "usd" else f"{n:,} tokens" for n in (max(0, self.left), self.limit)]
        window = "" if self.period == "total" else f" of this {self.period}"
        return f"the next call does not fit into {whose} budget{window}: {amounts[0]} of {amounts[1]} are left"


@dataclass(frozen=True, slots=True)
class Completed:
    """The agent gave its answer: a text, or the value that its schema asked for."""

    output: Any
    stop_reason: str = "end_turn"


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run ended without an answer: a limit, a refusal, a cut reply. `output` is the partial result; `refusal` says
    which limit of money or tokens had no room.
    """

    stop_reason: str
    detail: str
    output: str | None = None
    code: str | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Suspended:
    """The run needs a person: undecided approvals, or a tool call of which nobody knows whether it happened."""

    stop_reason: Literal["approval", "needs_reconcile"]
    calls: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Deferred:
    """The model is out of capacity for longer than a worker should wait; run again after `delay` seconds."""

    delay: float
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause was asked for and the run stopped between two steps."""


@dataclass(frozen=True, slots=True)
class Held:
    """A limit that pauses has no room for the next call: the job waits until it is raised or its window is over."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Batched:
    """A batch is to give the next reply: run again when it has ended. `asked` when it was asked, and had none yet."""

    batch_id: str
    asked: bool


@dataclass(frozen=True, slots=True)
class Delegated:
    """Tool calls of the run are other jobs now: run again when they have ended."""

    job_ids: list[str]


Outcome = Completed | Stopped | Suspended | Deferred | Paused | Held | Batched | Delegated
