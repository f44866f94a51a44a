"""What a parked job asks of people: one record for each tool call, written by the move that parks the job."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from agent_core.entries import ApprovalDecided, entry_from_json, entry_to_json
from agent_core.types import Effect, Json
from jobs import keys, outbox
from jobs.errors import ConflictError, NotFoundError
from jobs.journal import dump
from jobs.link import Arg, RedisLink
from jobs.records import new_id, rfc3339
from jobs.scripts import script

NAMES = json.dumps(keys.approval_names())
Kind = Literal["tool", "question"]
ApprovalStatus = Literal["pending", "approved", "denied", "expired", "withdrawn"]


def sha256_of(value: Any) -> str:
    """The hash of a JSON value in its canonical form: keys sorted, no spaces, no escapes that are not needed."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


@dataclass(frozen=True, slots=True)
class Request:
    """One call that a job is parked with, and the terms on which it waits; `expires_in` is in seconds, None for ever.

    `requester` is the API key that submitted the job.
    """

    call_id: str
    name: str
    input: Json
    effect: Effect = "destructive"
    kind: Kind = "tool"
    policy_version: str = ""
    expires_in: float | None = None
    on_expiry: Literal["deny", "approve"] = "deny"
    requester: str | None = None
    requester_may_decide: bool = True
    approval_id: str = field(default_factory=lambda: new_id("appr"))

    @property
    def ms(self) -> int:
        """How long it may wait, 0 for ever."""
        return 0 if self.expires_in is None else max(1, int(self.expires_in * 1000))

    def to_json(self) -> Json:
        """What is kept, and the data of the journal's entry."""
        return {**asdict(self), "input_sha256": sha256_of(self.input)}


def dump_requests(requests: Sequence[Request]) -> str:
    """The requests as `approvals.lua` takes them."""
    listed = [{"id": request.approval_id, "ms": request.ms, "text": dump(request.to_json())} for request in requests]
    return json.dumps(listed) if listed else ""


@dataclass(frozen=True, slots=True)
class Approval:
    """A record at one moment. `ruling` says what was decided, once something was."""

    id: str
    tenant: str
    job_id: str
    request: Request
    input_sha256: str
    status: ApprovalStatus
    requested_ms: int
    expires_ms: int | None = None
    decided_ms: int | None = None
    ruling: ApprovalDecided | None = None

    def to_json(self) -> Json:
        """The approval as the API shows it."""
        asked, ruling = self.request, self.ruling
        return {
            "id": self.id,
            "object": "approval",
            "job_id": self.job_id,
            "call_id": asked.call_id,
            "kind": asked.kind,
            "tool": asked.name,
            "input": asked.input,
            "input_sha256": self.input_sha256,
            "effect": asked.effect,
            "policy_version": asked.policy_version,
            "status": self.status,
            "requested_at": rfc3339(self.requested_ms),
            "expires_at": rfc3339(self.expires_ms),
            "on_expiry": asked.on_expiry,
            "requester": asked.requester,
            "requester_may_decide": asked.requester_may_decide,
            "decision": ruling and ruling.decision,
            "decided_at": rfc3339(self.decided_ms),
            "decided_by": ruling and ruling.by,
            "reason": ruling and ruling.reason,
            "edited_input": ruling and ruling.input,
            "answer": ruling and ruling.answer,
        }


class Due(NamedTuple):
    """Approvals that have expired, and parked jobs of which all are decided."""

    expired: list[str]
    decided: list[str]


class Verdict(NamedTuple):
    """What came of a decision; `pending` is how many of the job's approvals are still open once it is `decided`."""

    outcome: Literal["decided", "refused", "expired", "early", "missing"]
    status: str = ""
    pending: int = 0


def undecided(job_id: str, pending: int) -> ConflictError:
    """What is raised when a job is to go on that still waits for decisions about its calls."""
    return ConflictError(f"job {job_id} waits for {pending} approvals; decide about them first", code="undecided")


class Approvals:
    """The records in Redis. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def get(self, tenant: str | None, approval_id: str) -> Approval:
        """An approval; `tenant=None` is for the platform's own processes. Raises NotFoundError."""
        found = (await self.get_many([approval_id]))[0]
        if found is None or tenant not in (None, found.tenant):
            raise NotFoundError(f"there is no approval {approval_id[:80]!r}", code="approval_not_found")
        return found

    async def get_many(self, approval_ids: Sequence[str]) -> list[Approval | None]:
        """Approvals in the order of their ids, None for those that do not exist."""
        raws = await asyncio.gather(*(self._link.command("HGETALL", keys.approval(one)) for one in approval_ids))
        return [_parse(one, _texts(raw)) for one, raw in zip(approval_ids, raws, strict=True)]

    async def of_job(self, job_id: str) -> list[str]:
        """The ids of a job's approvals."""
        return sorted(one.decode() for one in await self._link.command("SMEMBERS", keys.job_approvals(job_id)))

    async def rule(
        self, approval: Approval, status: ApprovalStatus, ruling: ApprovalDecided, *, expired: bool = False
    ) -> Verdict:
        """Decides, if that is still to be done, and says so in the job's journal.

        `expired` is for the default decision, which is taken when the approval has expired, by the clock of Redis; any
        other only when it has not.
        """
        rule_keys = [keys.approval(approval.id), keys.job(approval.job_id), keys.journal(approval.job_id)]
        channel, text = keys.channel(approval.job_id), dump(entry_to_json(ruling))
        args: list[Arg] = [approval.id, approval.job_id, status, text, channel, NAMES, int(expired), outbox.NAMES]
        outcome, *more = await self._link.script(script("decide_approval"), rule_keys, args)
        match outcome:
            case b"decided":
                return Verdict("decided", status, int(more[0]))
            case b"refused":
                return Verdict("refused", more[0].decode())
            case _:
                return Verdict(outcome.decode())

    async def due(self, most: int, left_ms: int) -> Due:
        """What a sweep has to do, at most `most` of each; a job is left for so many ms to whoever decided."""
        due_keys = [keys.PENDING_APPROVALS, keys.DECIDED]
        expired, decided = await self._link.script(script("approvals_due"), due_keys, [most, left_ms], patient=False)
        return Due([one.decode() for one in expired], [one.decode() for one in decided])

    async def pending(self) -> int:
        """How many wait, of all tenants."""
        return int(await self._link.command("ZCARD", keys.PENDING_APPROVALS))


def _texts(raw: Any) -> dict[str, str]:
    pairs = raw.items() if isinstance(raw, Mapping) else zip(raw[::2], raw[1::2], strict=True)
    return {name.decode(): value.decode() for name, value in pairs}


def _parse(approval_id: str, raw: dict[str, str]) -> Approval | None:
    if not raw:
        return None
    asked = json.loads(raw["asked"])
    sha256 = asked.pop("input_sha256")
    ruling = entry_from_json(ApprovalDecided.TYPE, json.loads(raw["ruling"])) if raw.get("ruling") else None
    assert ruling is None or isinstance(ruling, ApprovalDecided)
    return Approval(
        approval_id,
        raw["tenant"],
        raw["job_id"],
        Request(**asked),
        sha256,
        raw["status"],  # type: ignore[arg-type]
        int(float(raw["requested_ms"])),
        None if raw["expires_ms"] == "+inf" else int(float(raw["expires_ms"])),
        int(float(raw["decided_ms"])) if "decided_ms" in raw else None,
        ruling,
    )
