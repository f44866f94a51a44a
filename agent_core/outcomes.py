"""How a run ends, as plain data: an answer, or what keeps it from one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from agent_core.types import AtLimit, Json, Unit, usd


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
