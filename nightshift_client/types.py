"""The JSON of the platform as types. Objects may have more fields than are named here; times are RFC 3339 in UTC, and
dollars decimal strings.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Status = Literal[
    "scheduled", "queued", "running", "requires_action", "paused", "completed", "failed", "cancelled", "expired"
]


class Budget(TypedDict, total=False):
    """Limits of a job; null is no limit of that kind."""

    usd: str | None
    tokens: int | None
    steps: int | None
    seconds: float | None
    at_limit: Literal["stop", "pause", "warn"]


class Usage(TypedDict):
    """What a job has used; `total_cost_usd` with its child jobs."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    model_calls: int
    tool_calls: int
    cost_usd: str
    total_cost_usd: str


class Job(TypedDict):
    """A job."""

    id: str
    agent: str
    agent_version: str
    status: Status
    stop_reason: str | None
    input: Any
    files: list[str]
    output: Any
    error: dict[str, Any] | None
    session_id: str | None
    user: str | None
    priority: str
    service: str
    tags: list[str]
    metadata: dict[str, Any]
    concurrency: dict[str, Any] | None
    budget: Budget
    usage: Usage
    attempts: int
    parent_id: str | None
    run_at: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    expires_at: str | None


class Event(TypedDict):
    """Something that happened to a job. Live text, `message.delta`, has no `id` and no `attempt`."""

    id: NotRequired[str]
    type: str
    job_id: str
    attempt: NotRequired[int]
    created_at: str
    data: dict[str, Any]


class LedgerRow(TypedDict):
    """What was reserved for a call and what it cost; `settled_usd` is null while it is open."""

    id: str
    job_id: str
    attempt: int
    step: int
    kind: str
    model: str
    usage: dict[str, Any] | None
    price_version: str | None
    reserved_usd: str
    settled_usd: str | None
    reason: str
    created_at: str


class UsageRow(TypedDict):
    """Sums of what was settled, of one value of each dimension that was asked for; the others are not there."""

    day: NotRequired[str]
    agent: NotRequired[str]
    user: NotRequired[str | None]
    model: NotRequired[str]
    role: NotRequired[str]
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: str
    cache_hit_rate: float | None


class Approval(TypedDict):
    """A call that waits, or waited, for a person."""

    id: str
    job_id: str
    call_id: str
    kind: Literal["tool", "question"]
    tool: str
    input: dict[str, Any]
    input_sha256: str
    effect: str
    status: Literal["pending", "approved", "denied", "expired", "withdrawn"]
    requested_at: str
    expires_at: str | None
    decided_by: str | None
    reason: str | None
    answer: str | None


class File(TypedDict):
    """A file that was uploaded, or that a job made."""

    id: str
    name: str
    bytes: int
    sha256: str
    job_id: str | None
    created_at: str


class WebhookMessage(TypedDict):
    """What a webhook tells."""

    type: str
    timestamp: str
    data: dict[str, Any]


# ---- what is sent


class Memory(TypedDict):
    """Something that is remembered of a user. `score` is there when a query was asked, `why` when it was to explain."""

    id: str
    object: Literal["memory"]
    user: str
    agent: str | None
    session: str | None
    kind: Literal["semantic", "episodic"]
    slot: str | None
    text: str
    keywords: list[str]
    importance: float
    created_at: str
    last_confirmed_at: str
    event_at: str | None
    valid_to: str | None
    superseded_by: str | None
    expires_at: str | None
    uses: int
    source: dict[str, str | None] | None
    score: NotRequired[float]
    why: NotRequired[dict[str, float]]


class Forgotten(TypedDict):
    """What was deleted of a user; `unfinished` jobs were left."""

    forgotten: int
    sessions: int
    jobs: int
    unfinished: int


class AuditEntry(TypedDict):
    """A change by the API, or an attempt at one; `key_id` is null without a valid key."""

    id: str
    created_at: str
    key_id: str | None
    action: str
    method: str
    path: str
    target: str | None
    status: int
    request_id: str
    address: str | None


class Webhook(TypedDict):
    """Where to tell of one job's events."""

    url: str
    events: NotRequired[list[str]]


class Concurrency(TypedDict):
    """The job runs only while fewer than `limit` jobs that name the same `key` do."""

    key: str
    limit: int


class Submission(TypedDict, total=False):
    """The fields of a submission besides `agent` and `input`."""

    files: list[str]
    session_id: str
    user: str
    priority: Literal["high", "default", "low"]
    service: Literal["standard", "batch"]
    run_at: str
    expires_at: str
    budget: Budget
    webhook: Webhook
    tags: list[str]
    metadata: dict[str, Any]
    output_schema: dict[str, Any]
    concurrency: Concurrency


class ForkChanges(TypedDict, total=False):
    """From which step to fork (0 is the bare input, the last one when left out), and what to change."""

    step: int
    message: str
    input: str | dict[str, Any]
    budget: Budget
    priority: Literal["high", "default", "low"]
    user: str
    tags: list[str]
    metadata: dict[str, Any]
    run_at: str
    expires_at: str


class JobFilters(TypedDict, total=False):
    """Which jobs to list."""

    status: Status
    agent: str
    tag: str
    session_id: str
    user: str
    created_after: str
    created_before: str


class MemoryFields(TypedDict, total=False):
    """What a memory is, besides its text."""

    kind: Literal["semantic", "episodic"]
    slot: str | None
    importance: float
    expires_at: str | None


class MemoryFilters(TypedDict, total=False):
    """Which memories to list. `k` and `explain` go with a `query`, `past` without one."""

    query: str
    k: int
    explain: bool
    kind: Literal["semantic", "episodic"]
    past: bool


class AuditFilters(TypedDict, total=False):
    """Which entries of the audit log to list; `tenant` and `without_key` are for the bootstrap key."""

    action: str | None
    key_id: str | None
    target: str | None
    created_after: str | None
    created_before: str | None
    tenant: str | None
    without_key: bool


class Ruling(TypedDict, total=False):
    """The fields of a decision besides the decision. `input` is what the call runs with in place of its own;
    `input_sha256`, as the approval has it, makes sure that the decision is about what was seen.
    """

    reason: str
    input: dict[str, Any]
    input_sha256: str
    answer: str
