"""The shapes of answers, for the OpenAPI description alone: answers are written by the types that they show."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from agent_core.types import AtLimit
from jobs.budgets import Period
from jobs.status import Status

Item = TypeVar("Item")


class Problem(BaseModel):
    """A refusal (RFC 9457). `code` is stable; `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[dict[str, str]] = Field(description="The fields that are wrong: `field` and `message` of each.")


class Page(BaseModel, Generic[Item]):
    """A page of a list. The next one is asked for with `after`, which takes `next_cursor`."""

    data: list[Item]
    has_more: bool
    next_cursor: str | None


class UsageView(BaseModel):
    """What a job has used."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    model_calls: int
    tool_calls: int
    cost_usd: str = Field(examples=["0.0123"])
    total_cost_usd: str = Field(examples=["0.0456"], description="With that of its child jobs.")


class BudgetView(BaseModel):
    """Limits of a job; null is no limit of that kind."""

    usd: str | None
    tokens: int | None
    steps: int | None
    seconds: float | None
    at_limit: AtLimit


class JobView(BaseModel):
    """A job."""

    id: str
    object: Literal["job"]
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
    budget: BudgetView
    usage: UsageView
    attempts: int
    parent_id: str | None
    forked_from: dict[str, Any] | None
    run_at: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    expires_at: str | None


class BatchItem(BaseModel):
    """One answer of a batch: the job, or why there is none."""

    job: JobView | None = None
    error: Problem | None = None


class BatchView(BaseModel):
    """The answers of a batch, in the order of its jobs."""

    data: list[BatchItem]


class BasisView(BaseModel):
    """How an estimate is known."""

    method: Literal["like_jobs", "limits"] = Field(description="`limits`: too few like jobs are known for the p's.")
    jobs: int = Field(description="Like jobs that are known.")
    agent_version: str = Field(description="The version that they ran; another than asked for when that has too few.")
    input_bytes: list[int] | None = Field(description="From how many bytes to how many they were given.")
    stopped_by_limit: int | None = Field(description="How many of them a limit stopped before they were done.")
    budget: str | None = Field(description="What the worst case follows from: `job`, or the scope of a budget.")
    detail: str


class EstimateView(BaseModel):
    """What a submission would cost; null is unknown. It costs no more than `p90_usd` nine times out of ten."""

    agent: str
    agent_version: str
    input_bytes: int = Field(description="The input and the files.")
    worst_case_usd: str | None = Field(examples=["1"])
    p50_usd: str | None = Field(examples=["0.0123"])
    p90_usd: str | None = Field(examples=["0.0456"])
    based_on: BasisView


class EventView(BaseModel):
    """Something that happened to a job."""

    id: str
    type: str
    job_id: str
    attempt: int
    created_at: str
    data: dict[str, Any]


class LedgerRow(BaseModel):
    """What was reserved for one attempt at a model call, and what it cost; null while it is open."""

    id: str
    job_id: str
    attempt: int
    step: int
    kind: str
    role: str
    model: str
    usage: dict[str, Any] | None
    tokens: int = Field(description="What it counts for where tokens are limited; while it is open, what is reserved.")
    price_version: str | None
    reserved_usd: str = Field(examples=["0.0123"])
    settled_usd: str | None = Field(examples=["0.0123"])
    reason: str
    created_at: str


class TenantLedgerRow(LedgerRow):
    """A settled row, with its day, which is that of its reservation, and whose job it is of."""

    day: str = Field(examples=["2026-11-20"])
    agent: str
    user: str | None
    session_id: str | None


class ScopeBudgetView(BaseModel):
    """A budget in its current window. A default (`user:*`) has no figures: each that it holds for has its own."""

    scope: str = Field(examples=["tenant", "user:u1", "agent:*"])
    period: Period
    window: str = Field(examples=["total", "2026-11", "2026-11-20"])
    usd: str | None = Field(examples=["0.25"])
    tokens: int | None
    at_limit: AtLimit
    spent_usd: str | None
    reserved_usd: str | None = Field(description="For calls that are under way.")
    remaining_usd: str | None
    spent_tokens: int | None
    reserved_tokens: int | None
    remaining_tokens: int | None


class UsageRow(BaseModel):
    """What was settled, of one value of each dimension that was asked for; the others are not there."""

    day: str | None = Field(None, examples=["2026-11-20"])
    agent: str | None = None
    user: str | None = None
    model: str | None = None
    role: str | None = None
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: str = Field(examples=["0.0123"])
    cache_hit_rate: float | None = Field(description="The share of input tokens that came from the cache.")


class DifferenceView(BaseModel):
    """A figure that is not what the rows come to; dollars as decimal strings, all else as numbers."""

    key: str = Field(description="Where it stands in Redis.")
    figure: str
    recorded: str | int
    rows: str | int


class UncheckedView(BaseModel):
    """What could not be checked."""

    what: str = Field(description="A key in Redis, or a window.")
    why: str


class AuditView(BaseModel):
    """What came of making every total again from the rows of the ledger."""

    exact: bool = Field(description="Whether there is no difference.")
    jobs: int
    rows: int
    figures: int = Field(description="How many were compared.")
    differences: list[DifferenceView]
    unchecked: list[UncheckedView]


class ExplanationView(BaseModel):
    """The gate that holds a job. A running job has `attempt`, `worker`, `step`, `doing` and `lease_ends_at` as well,
    one that waits for a person its `stop_reason` and the `calls` that it waits for.
    """

    job_id: str
    status: Status
    gate: str
    detail: str
    place: int | None = Field(description="Jobs before it in its queue.")
    since: str | None
    workers: int | None = Field(description="Live workers that serve its pool.")
    next_at: str | None


class MessageView(BaseModel):
    """A message of a session; it keeps its offset for good."""

    offset: int
    is_summary: bool = Field(description="It stands for itself and all before it, which is no longer kept.")
    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]] = Field(description="As in the Messages API.")


class SessionView(Page[MessageView]):
    """A session with a page of its conversation."""

    id: str
    object: Literal["session"]
    length: int = Field(description="Messages that were ever said.")
    generation: int = Field(description="How often a summary took the place of the oldest messages.")
    expires_at: str


class ApprovalView(BaseModel):
    """A call of a job that waits, or waited, for a person."""

    id: str
    object: Literal["approval"]
    job_id: str
    call_id: str
    kind: Literal["tool", "question"]
    tool: str
    input: dict[str, Any]
    input_sha256: str
    effect: str
    policy_version: str
    status: Literal["pending", "approved", "denied", "expired", "withdrawn"]
    requested_at: str
    expires_at: str | None
    on_expiry: Literal["approve", "deny"]
    requester: str | None = Field(description="The API key that submitted the job.")
    requester_may_decide: bool
    decision: Literal["approve", "deny"] | None
    decided_at: str | None
    decided_by: str | None = Field(description="An API key, or `expiry`.")
    reason: str | None
    edited_input: dict[str, Any] | None = Field(description="What it ran with in place of its own input.")
    answer: str | None


class FileView(BaseModel):
    """A file."""

    id: str
    object: Literal["file"]
    name: str
    bytes: int
    sha256: str
    job_id: str | None
    created_at: str


class ToolChangeView(BaseModel):
    """A tool that its MCP server changed, and that is off until that is accepted; null where there is none."""

    tool: str
    change: Literal["changed", "new", "gone"]
    pinned: dict[str, Any] | None
    seen: dict[str, Any] | None


class McpServerView(BaseModel):
    """An MCP server that agents name."""

    name: str
    tools: list[str] = Field(description="Those that are pinned.")
    pinned: str = Field(description="The fingerprint of what is pinned.")
    seen: str = Field(description="The fingerprint of what workers saw last.")
    changes: list[ToolChangeView]
    away_from: list[str] = Field(description="Live workers that cannot reach it.")


class AgentView(BaseModel):
    """A published agent."""

    name: str
    version: str
    description: str | None
    model: str | None
    pool: str
    tools: list[str]
    budget: BudgetView
    workers: int = Field(description="Live workers that can run this version.")
    simulated: bool = Field(description="Whether one of them asks the simulated model: what it runs is not billed.")


class AgentDetail(AgentView):
    """A published agent with its whole definition."""

    definition: dict[str, Any]


class VersionView(BaseModel):
    """A version of an agent."""

    name: str
    version: str
    current: bool


class KillEvidenceView(BaseModel):
    """What became of the model calls that a kill switch covers."""

    calls_open: int = Field(description="Calls that are under way.")
    calls_begun_since: int = Field(description="Calls that were begun although it was on: 0.")
    calls_refused_since: int = Field(description="Calls that were about to begin, and were not let.")
    last_call_began_at: str | None
    last_call_ended_at: str | None


class KillSwitchView(BaseModel):
    """A kill switch. `since`, `by` (an API key's id) and `reason` are of when it was turned on, null if it was not."""

    scope: str = Field(examples=["global", "tenant", "agent:analyst"])
    on: bool
    since: str | None
    by: str | None
    reason: str | None
    evidence: KillEvidenceView | None = Field(description="Null for the global switch to all but the tenant default.")


class Health(BaseModel):
    """A word on the process."""

    status: str
