"""What clients send, strictly: no unknown fields, no coercion, no number that is not finite."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from agent_core.schemas import check_schema
from agent_core.types import AtLimit, micros, usd
from jobs.budgets import Period
from jobs.outbox import DISABLED, EVENTS
from jobs.records import Priority, Service
from jobs.webhooks import OVERLAP_SECONDS

MAX_BATCH = 1000
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
DATE = re.compile(r"20\d\d-\d\d-\d\d")
LAST_YEAR = 2100
DECIMAL = re.compile(r"\d{1,7}(\.\d{1,6})?")
SWITCH_SCOPE = re.compile(r"global|tenant|agent:[A-Za-z][A-Za-z0-9_-]{0,63}")
LONGEST_SCOPE = 136
"""A kind, a colon and a `Word`."""
PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
FileId = Annotated[str, Field(pattern=r"^file_[0-9a-f]{1,64}$")]
Word = Annotated[str, Field(min_length=1, max_length=128, pattern=PRINTABLE)]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=PRINTABLE)]


def parse_time(text: Any) -> int:
    """The ms since the epoch of an RFC 3339 time with a zone. Raises ValueError."""
    if not isinstance(text, str) or not RFC3339.fullmatch(text):
        raise ValueError("expected a time like 2026-11-20T08:30:00Z, with a zone")
    moment = datetime.fromisoformat(text.upper())
    if not 1971 <= moment.year <= LAST_YEAR:
        raise ValueError(f"the year must be between 1971 and {LAST_YEAR}")
    return int(moment.timestamp() * 1000)


def _dollars(amount: Any) -> Any:
    text = repr(amount) if isinstance(amount, int | float) and not isinstance(amount, bool) else amount
    if not isinstance(text, str) or not DECIMAL.fullmatch(text):
        raise ValueError('expected dollars as a decimal string like "0.25", with at most 6 places')
    return usd(micros(text))


def _input(value: Any) -> Any:
    if not (isinstance(value, dict) or (isinstance(value, str) and value.strip())):
        raise ValueError("expected a text that is not empty, or an object")
    return value


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ValueError("expected an http or https URL without credentials")
    return url


Time = Annotated[
    int, BeforeValidator(parse_time), WithJsonSchema({"type": "string", "format": "date-time", "title": "Time"})
]
Dollars = Annotated[
    str,
    BeforeValidator(_dollars),
    WithJsonSchema({"type": "string", "pattern": DECIMAL.pattern, "examples": ["0.25"], "title": "US dollars"}),
]
Input = Annotated[
    Any,
    AfterValidator(_input),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "object"}], "title": "Text or object"}),
]
Url = Annotated[str, Field(max_length=2000, pattern=r"^[!-~]+$"), AfterValidator(_web_address)]


def check_output_schema(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """The schema. Raises ValueError for one that no answer may be held to."""
    if schema is not None:
        check_schema(schema)
    return schema


def _day(text: Any) -> date:
    if not isinstance(text, str) or not DATE.fullmatch(text):
        raise ValueError("expected a day like 2026-11-20")
    return date.fromisoformat(text)


Day = Annotated[
    date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date", "title": "Day in UTC"})
]


class Strict(BaseModel):
    """Base of every request body."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class BudgetIn(Strict):
    """Limits of one job. What is left out comes from the agent; null is no limit of that kind."""

    usd: Dollars | None = None
    tokens: Annotated[int, Field(ge=1, le=10**12)] | None = None
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    seconds: Annotated[float, Field(gt=0, le=30 * 86_400)] | None = None
    at_limit: Annotated[AtLimit, Field(description="Of dollars and tokens.")] = "stop"

    def changes(self) -> dict[str, Any]:
        """The limits that were given."""
        return self.model_dump(exclude_unset=True)


def _known(events: Sequence[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in events:
            raise ValueError(f"webhooks know no such event; there are: {', '.join(events)}")
        return name

    return AfterValidator(check)


ALL_EVENTS = (*EVENTS, DISABLED)
JobEvent = Annotated[str, _known(EVENTS), WithJsonSchema({"type": "string", "enum": list(EVENTS)})]
JobEvents = Annotated[list[JobEvent], Field(min_length=1, max_length=len(EVENTS))]
EndpointEvent = Annotated[str, _known(ALL_EVENTS), WithJsonSchema({"type": "string", "enum": list(ALL_EVENTS)})]
EndpointEvents = Annotated[list[EndpointEvent], Field(min_length=1, max_length=len(ALL_EVENTS))]
Description = Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE)]


class WebhookIn(Strict):
    """Where to tell of this job's events; of those of its life when `events` is left out."""

    url: Url
    events: JobEvents | None = None


class WebhookEndpointIn(Strict):
    """Where to tell of the events of all jobs of the tenant; of those of their lives when `events` is left out."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://example.com/hook", "events": ["job.completed", "job.failed"]}]}
    )

    url: Url
    events: EndpointEvents | None = None
    description: Description | None = None


class WebhookEndpointChange(Strict):
    """What is to be changed; `enabled` is what a person or a receiver that failed for too long has turned off."""

    url: Url = ""
    events: EndpointEvents | None = None
    description: Description | None = None
    enabled: bool = True


class Rotation(Strict):
    """How long the secret before the new one goes on signing beside it; 0 when it got into wrong hands."""

    overlap_seconds: Annotated[int, Field(ge=0, le=7 * 86_400)] = OVERLAP_SECONDS


class RedeliveryIn(Strict):
    """Which deliveries to make again: those of all events since a time, or of them those alone that never arrived."""

    since: Time
    only_failed: bool = False


Text = Annotated[str, Field(min_length=1)]
Tags = Annotated[list[Tag], Field(max_length=32)]
Metadata = dict[str, Any]


class ConcurrencyIn(Strict):
    """The job runs only while fewer than `limit` jobs of the tenant that name the same `key` do."""

    key: Word
    limit: Annotated[int, Field(ge=1, le=1000)]


class Submission(Strict):
    """One job to run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"agent": "analyst", "input": "Which region sold most?", "budget": {"usd": "0.25"}}]
        }
    )

    agent: Annotated[str, Field(min_length=1, max_length=64)]
    input: Input
    files: Annotated[list[FileId], Field(max_length=100)] = Field(default_factory=list)
    session_id: Word | None = None
    user: Word | None = None
    priority: Priority = "default"
    service: Annotated[Service, Field(description="batch: model calls cost half and take up to a day.")] = "standard"
    run_at: Time | None = None
    expires_at: Time | None = None
    budget: BudgetIn | None = None
    webhook: WebhookIn | None = None
    tags: Tags = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    output_schema: Annotated[
        dict[str, Any] | None,
        Field(description="A JSON schema of an object that the job's output must fit."),
        AfterValidator(check_output_schema),
    ] = None
    concurrency: ConcurrencyIn | None = None


class Batch(Strict):
    """Up to 1,000 submissions, each judged on its own."""

    jobs: Annotated[list[Any], Field(min_length=1, max_length=MAX_BATCH)]


class AcceptTools(Strict):
    """The tools to accept: the `seen` of the MCP server when you looked at it."""

    seen: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Nothing(Strict):
    """An empty object: the action takes no fields."""


class Limits(Strict):
    """Limits to change before the job goes on."""

    budget: BudgetIn | None = None


class Fork(Strict):
    """Which step to start from (0 is the bare input; the last one when left out), and what to change.

    `message` is said by the user at that point; `input` needs step 0.
    """

    step: Annotated[int, Field(ge=0, le=10**6)] | None = None
    message: Text | None = None
    input: Input | None = None
    budget: BudgetIn | None = None
    priority: Priority | None = None
    user: Word | None = None
    tags: Tags | None = None
    metadata: Metadata | None = None
    run_at: Time | None = None
    expires_at: Time | None = None

    def changes(self) -> dict[str, Any]:
        """What the fork replaces in the job's specification."""
        given = self.model_dump(exclude_unset=True, exclude={"step", "message", "budget"})
        return {name: value for name, value in given.items() if value is not None}


CallId = Annotated[str, Field(min_length=1, max_length=256)]


class CallHappened(Strict):
    """The call had its effect; `result` is what the model gets to see: a text as it is, anything else as JSON."""

    call_id: CallId
    decision: Literal["happened"]
    result: Any


class CallDidNotHappen(Strict):
    """The call had no effect and will have none; it is run."""

    call_id: CallId
    decision: Literal["not_happened"]


class Reconciliation(Strict):
    """Either `decisions`, one for each call that the job waits for, or `stop: true`, which fails the job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"decisions": [{"call_id": "toolu_1", "decision": "happened", "result": "paid, receipt 42"}]},
                {"stop": True, "reason": "the customer was told"},
            ]
        }
    )

    decisions: (
        Annotated[
            list[Annotated[CallHappened | CallDidNotHappen, Field(discriminator="decision")]],
            Field(min_length=1, max_length=1000),
        ]
        | None
    ) = None
    stop: bool = False
    reason: Annotated[str, Field(min_length=1, max_length=2000)] | None = None

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.decisions is None) != self.stop:
            raise ValueError("give either decisions or stop")
        if self.reason is not None and not self.stop:
            raise ValueError("a reason goes with stop")
        return self


class RulingIn(Strict):
    """What is to become of a call that waits for a person.

    `input` is what it is to run with in place of its own; `input_sha256`, as the approval shows it, makes sure that the
    decision is about the input that was seen. `answer` is that to a question.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"decision": "approve", "input": {"order_id": "A-1042", "amount": "20.00"}},
                {"decision": "deny", "reason": "the order is older than 30 days"},
                {"decision": "approve", "answer": "the blue one"},
            ]
        }
    )

    decision: Literal["approve", "deny"]
    reason: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    input: dict[str, Any] | None = None
    input_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    answer: Annotated[str, Field(min_length=1, max_length=20_000)] | None = None


def _switch_scope(scope: str) -> str:
    if not SWITCH_SCOPE.fullmatch(scope):
        raise ValueError("expected global, tenant, or agent:NAME with the name of an agent")
    return scope


class KillSwitchIn(Strict):
    """What to stop, or to let go on again. `global` is for admins of the tenant default."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"scope": "agent:analyst", "on": True, "reason": "it mails customers"}]}
    )

    scope: Annotated[str, AfterValidator(_switch_scope), Field(examples=["global", "tenant", "agent:analyst"])]
    on: bool
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=PRINTABLE)] | None = None


class ScopeBudgetIn(Strict):
    """A limit in dollars, in tokens or in both, on what a scope may spend in each window of a period (UTC)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"scope": "user:u1", "usd": "0.25", "period": "day"}]})

    scope: Annotated[str, Field(min_length=1, max_length=LONGEST_SCOPE, examples=["tenant", "user:u1", "agent:*"])]
    usd: Dollars | None = None
    tokens: Annotated[int, Field(ge=1, le=10**12)] | None = None
    period: Period = "total"
    at_limit: AtLimit = "stop"


ListedDelivery = Literal["pending", "delivered", "failed", "dropped"]
ListedApproval = Literal["pending", "approved", "denied", "expired", "withdrawn"]
ListedStatus = Literal[
    "scheduled", "queued", "running", "requires_action", "paused", "completed", "failed", "cancelled", "expired"
]
