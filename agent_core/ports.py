"""What the loop asks of the world. `defaults` has the ports that need nothing; `worker.durable` the durable ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from agent_core.entries import Entry
from agent_core.types import Effect, Json


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a model: what the Messages API takes, and under which id it is reserved.

    `batch_id` is the batch that the call is with since an earlier attempt, which is not to be made again.
    """

    model: str
    system: str
    messages: list[Json]
    tools: list[Json]
    max_tokens: int
    extra: Json = field(default_factory=dict)
    call_id: str = ""
    batch_id: str | None = None


@dataclass(slots=True)
class Draft:
    """A reply while it grows. Whatever ends the call, it holds what has arrived by then.

    `usage` is the provider's own JSON; `stop_reason` stays None until the reply is whole. `batch_id` is the batch that
    the call is with; while `unsent`, it has not left this process.
    """

    content: list[Json] = field(default_factory=list)
    usage: Json | None = None
    stop_reason: str | None = None
    started: bool = False
    on_text: Callable[[str], None] | None = None
    batch_id: str | None = None
    unsent: bool = False


class Model(Protocol):
    """One target: a client and the server it speaks to."""

    async def complete(self, request: Request, draft: Draft) -> None:
        """Makes one attempt and fills `draft`. Raises `ModelError`; never retries by itself.

        May return before there is a reply, when a batch is to give it: `draft.batch_id` then says which.
        """
        ...

    def price(self, model: str, usage: Json, extra: Json | None = None) -> int:
        """What a usage costs in micro-dollars; where it is silent, what the request carried (`extra`) decides.

        Raises `UnknownPriceError`; ValueError when the usage cannot be read.
        """
        ...

    def worst_case(self, model: str, input_tokens: int, max_tokens: int, extra: Json | None = None) -> int:
        """An upper bound of one call's price in micro-dollars. Raises `UnknownPriceError`.

        `input_tokens` is an upper bound itself; `extra` is what the request carries besides.
        """
        ...

    def affordable(self, model: str, input_tokens: int, micros: int, extra: Json | None = None) -> int:
        """The most output tokens for which `worst_case` is at most `micros`; 0 when there are none."""
        ...

    @property
    def price_version(self) -> str: ...


class Journal(Protocol):
    """The durable memory of a run."""

    async def record(self, *entries: Entry) -> None:
        """Makes the entries permanent, in order, all or none, before it returns.

        Recording a `ModelStarted` reserves its price: raises `BudgetError` when a limit has no room for it and
        `KilledError` when a kill switch is on; nothing is recorded then. Raises `StaleAttemptError` when this attempt
        no longer owns the job.
        """
        ...

    def kept(self, entry: Entry) -> Entry:
        """The entry as it is to be kept, without secrets. It is this that is recorded, and folded into the state."""
        ...

    def pause_requested(self) -> bool:
        """Whether the run should stop at the next boundary between two steps."""
        ...


Decision = Literal["run", "ask", "deny"]


class Approver(Protocol):
    """Decides whether a tool call may run."""

    def decide(self, name: str, input: Json, effect: Effect, call_id: str) -> Decision: ...


class Breakers(Protocol):
    """Says of targets whether they are worth asking; the fleet shares what it learns of them."""

    async def allows(self, target: str) -> bool:
        """Whether a call may go to the target, by its name."""
        ...

    async def report(self, target: str, ok: bool, code: str = "") -> None:
        """What became of a call; `code` is that of the failure."""
        ...


class Events(Protocol):
    """Live signals that nobody needs to keep."""

    def text(self, step: int, delta: str) -> None: ...
