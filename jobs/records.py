"""The job record: what a submission asks for, and the record as Redis holds it and as the API shows it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

from agent_core.types import Budget, Json, usd
from jobs.link import milliseconds
from jobs.outbox import own_webhook
from jobs.status import ENDED, STATUSES, Status

RECORD_VERSION = 1
Priority = Literal["high", "default", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "default", "low")
Service = Literal["standard", "batch"]
"""How a job's model calls are made: at once, or in batches that cost half and take up to a day."""
COUNTERS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "model_calls",
    "tool_calls",
    "cost",
    "reserved",
    "spent",
    "held",
)
"""Record fields that are counted; the last four in micro-dollars, `spent` and `held` with those of child jobs."""


def new_id(prefix: str) -> str:
    """A fresh id: the prefix, 12 hexadecimal digits of the time in ms, 20 random ones. Ids sort by their age."""
    return f"{prefix}_{milliseconds():012x}{secrets.token_hex(10)}"


def rfc3339(ms: int | None) -> str | None:
    """A time in ms as RFC 3339 in UTC."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What was asked for; it never changes after the submission. Times are ms since the epoch."""

    agent: str
    input: Any
    agent_version: str = ""
    pool: str = "default"
    priority: Priority = "default"
    service: Service = "standard"
    files: list[str] = field(default_factory=list)
    session_id: str | None = None
    user: str | None = None
    run_at: int | None = None
    expires_at: int | None = None
    webhook: Json | None = None
    tags: list[str] = field(default_factory=list)
    metadata: Json = field(default_factory=dict)
    output_schema: Json | None = None
    concurrency: Json | None = None
    """`key` and `limit`: it runs only while fewer than `limit` jobs of the tenant with the same `key` do."""
    submitted_by: str | None = None
    """Id of the API key that submitted it."""
    parent_id: str | None = None
    ancestors: list[str] = field(default_factory=list)
    """Ids of the jobs above it, the parent last; they pay for it too."""
    ancestor_agents: list[str] = field(default_factory=list)
    forked_from: Json | None = None

    def to_json(self) -> Json:
        return {name: getattr(self, name) for name in SPEC_FIELDS}

    def under(self, parent: Job) -> JobSpec:
        """The same as a child of a job, inside its budget."""
        above = parent.spec
        return replace(
            self,
            submitted_by=above.submitted_by,
            parent_id=parent.id,
            ancestors=[*above.ancestors, parent.id],
            ancestor_agents=[*above.ancestor_agents, above.agent],
        )


SPEC_FIELDS = tuple(f.name for f in fields(JobSpec))


@dataclass(frozen=True, slots=True)
class Job:
    """A job record at one moment. `output` and `error` come from the journal entry that ended it."""

    id: str
    tenant: str
    spec: JobSpec
    budget: Budget
    status: Status
    created_ms: int
    stop_reason: str | None = None
    attempts: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    since_ms: int | None = None
    ran_ms: int = 0
    lost: int = 0
    worker: str | None = None
    token: str = ""
    queue: str = ""
    flag: Literal["cancel", "pause"] | None = None
    end_id: str | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    output: Any = None
    error: Json | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def to_json(self) -> Json:
        """The job as the API shows it."""
        spec, counters = self.spec, self.counters
        return {
            "id": self.id,
            "object": "job",
            "agent": spec.agent,
            "agent_version": spec.agent_version,
            "status": self.status,
            "stop_reason": self.stop_reason,
            "input": spec.input,
            "files": spec.files,
            "output": self.output,
            "error": self.error,
            "session_id": spec.session_id,
            "user": spec.user,
            "priority": spec.priority,
            "service": spec.service,
            "tags": spec.tags,
            "metadata": spec.metadata,
            "concurrency": spec.concurrency,
            "budget": self.budget.to_json(),
            "usage": {
                **{name: counters.get(name, 0) for name in COUNTERS[:6]},
                "cost_usd": usd(counters.get("cost", 0)),
                "total_cost_usd": usd(counters.get("spent", 0)),
            },
            "attempts": self.attempts,
            "parent_id": spec.parent_id,
            "forked_from": spec.forked_from,
            "run_at": rfc3339(spec.run_at),
            "created_at": rfc3339(self.created_ms),
            "started_at": rfc3339(self.started_ms),
            "ended_at": rfc3339(self.ended_ms),
            "expires_at": rfc3339(spec.expires_at),
        }

    def as_submitted(self) -> Job:
        """The job as the first answer to its submission showed it."""
        first: Status = "scheduled" if self.spec.run_at is not None else "queued"
        return Job(self.id, self.tenant, self.spec, self.budget, first, self.created_ms)


def record_fields(job_id: str, tenant: str, spec: JobSpec, budget: Budget) -> list[str | int]:
    """The fields of a new record, flat, as `submit.lua` takes them."""
    return [
        "v", RECORD_VERSION,
        "id", job_id,
        "tenant", tenant,
        "agent", spec.agent,
        "agent_version", spec.agent_version,
        "session_id", spec.session_id or "",
        "user", spec.user or "",
        "webhook", own_webhook(tenant, spec.webhook),
        "ancestors", " ".join(spec.ancestors),
        "agents", " ".join([*spec.ancestor_agents, spec.agent]),
        *([] if spec.concurrency is None else
          ["concurrency_key", spec.concurrency["key"], "concurrency_limit", spec.concurrency["limit"]]),
        "spec", json.dumps(spec.to_json(), ensure_ascii=False),
        *(word for pair in budget_fields(budget).items() for word in pair),
    ]  # fmt: skip


def budget_fields(budget: Budget) -> dict[str, str | int]:
    """The record's fields of a budget: itself, and its limits as `money.lua` reads them."""
    return {
        "budget": json.dumps(budget.to_json()),
        "limit_micros": "" if budget.micros is None else budget.micros,
        "limit_tokens": "" if budget.tokens is None else budget.tokens,
        "at_limit": budget.at_limit,
    }


class DamagedRecordError(ValueError):
    """A record that no version can read."""


def parse_record(raw: Mapping[bytes, bytes], end: Json | None = None) -> Job:
    """The job of a record's hash; `end` is the data of the entry that ended it.

    Raises DamagedRecordError; another ValueError for a record of a version that is newer than this one.
    """
    try:
        version = int(raw[b"v"])
        if version <= RECORD_VERSION:
            return _parse({k.decode(): v.decode() for k, v in raw.items()}, end or {})
    except (KeyError, TypeError, ValueError) as exc:
        raise DamagedRecordError(f"the record is damaged: {exc!r}") from exc
    raise ValueError(f"the record has version {version}; this version reads up to {RECORD_VERSION}")


def _parse(raw: dict[str, str], end: Json) -> Job:
    if raw["status"] not in STATUSES:
        raise ValueError(f"the record has the unknown status {raw['status'][:20]!r}")

    def ms(name: str) -> int | None:
        return int(raw[name]) if raw.get(name) else None

    return Job(
        id=raw["id"],
        tenant=raw["tenant"],
        spec=JobSpec(**json.loads(raw["spec"])),
        budget=Budget(**json.loads(raw["budget"])),
        status=raw["status"],
        created_ms=int(raw["created_ms"]),
        stop_reason=raw.get("stop_reason") or None,
        attempts=int(raw.get("attempt", 0)),
        started_ms=ms("started_ms"),
        ended_ms=ms("ended_ms"),
        since_ms=ms("since_ms"),
        ran_ms=int(raw.get("ran_ms", 0)),
        lost=int(raw.get("lost", 0)),
        worker=raw.get("worker"),
        token=raw.get("token", ""),
        queue=raw.get("queue", ""),
        flag="cancel" if "cancel" in raw else "pause" if "pause" in raw else None,
        end_id=raw.get("end_id"),
        counters={name: int(raw.get(name, 0)) for name in COUNTERS},
        output=end.get("output"),
        error=end.get("error"),
    )
