"""The shapes of answers, for the OpenAPI description alone: answers are written by the types that they show."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

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


class BudgetView(BaseModel):
    """Limits of a job; null is no limit of that kind."""

    usd: str | None
    tokens: int | None
    steps: int | None
    seconds: float | None


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
    tags: list[str]
    metadata: dict[str, Any]
    budget: BudgetView
    usage: UsageView
    warnings: list[str]
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
    model: str
    usage: dict[str, Any] | None
    price_version: str | None
    reserved_usd: str = Field(examples=["0.0123"])
    settled_usd: str | None = Field(examples=["0.0123"])
    reason: str
    created_at: str


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


class FileView(BaseModel):
    """A file."""

    id: str
    object: Literal["file"]
    name: str
    bytes: int
    sha256: str
    job_id: str | None
    created_at: str


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


class KeyView(BaseModel):
    """An API key without its secret."""

    id: str
    tenant: str
    name: str
    scopes: list[str]
    hint: str
    created_at: str


class NewKey(KeyView):
    """An API key that was just made."""

    secret: str


class Health(BaseModel):
    """A word on the process."""

    status: str
