"""What both clients can do, each operation written once; see `flows`."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Unpack
from urllib.parse import quote

import httpx2

from nightshift_client.errors import ApiError, UnreachableError
from nightshift_client.flows import Emit, Feed, Flow, Pause, Read, Send
from nightshift_client.transports import each, one
from nightshift_client.types import (
    Approval,
    AuditEntry,
    AuditFilters,
    Budget,
    Event,
    File,
    Forgotten,
    ForkChanges,
    Job,
    JobFilters,
    LedgerRow,
    Memory,
    MemoryFields,
    MemoryFilters,
    Ruling,
    Submission,
    UsageRow,
)

LONG_POLL_SECONDS = 30.0
SILENCE_SECONDS = 45.0
"""A stream of events has a heartbeat every 15 s; one that is silent for longer is dead."""
MOST_IN_A_PAGE = 200
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
LONGEST_RECONNECT_PAUSE = 2.0
AWAY_OR_BUSY = frozenset({429, 502, 503, 504})
UNDER_WAY = "idempotency_in_progress"
GOING_ON = frozenset({"scheduled", "queued", "running"})


class Operations:
    """Every method raises ApiError for a refusal and UnreachableError when there is no answer.

    A request that may be repeated is repeated for `patience` seconds while the platform is away or busy. Every POST may
    be, for it has an `Idempotency-Key`, one of its own unless you name one.
    """

    def __init__(self, *, timeout: float, patience: float) -> None:
        self.timeout = timeout
        self.patience = patience

    # ---- jobs

    @one
    def submit(
        self,
        agent: str,
        input: str | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[Submission],
    ) -> Flow[Job]:
        """Submits a job; the job as it was accepted."""
        body = {"agent": agent, "input": input, **fields}
        return self._json("POST", "/v1/jobs", body, idempotency_key=idempotency_key)

    @one
    def get(self, job_id: str) -> Flow[Job]:
        """The job as it is now."""
        return self._json("GET", _job(job_id))

    @each
    def jobs(self, **filters: Unpack[JobFilters]) -> Feed[Job]:
        """All jobs that fit, the newest first."""
        return self._pages("/v1/jobs", filters)

    @one
    def wait(self, job_id: str, timeout: float | None = None) -> Flow[Job]:
        """The job once it has ended or waits for someone, or as it is after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONG_POLL_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
            seconds = min(left, LONG_POLL_SECONDS)
            query = {"wait": round(seconds, 3)}
            job: Job = yield from self._json("GET", _job(job_id), query=query, timeout=seconds + self.timeout)
            if job["status"] not in GOING_ON or left <= 0:
                return job
            yield Pause(FIRST_PAUSE)  # a server that is stopping answers at once

    @one
    def cancel(self, job_id: str) -> Flow[Job]:
        """Cancels the job. A running one may still say `running`."""
        return self._act(job_id, "cancel")

    @one
    def pause(self, job_id: str) -> Flow[Job]:
        """Pauses the job; a running one pauses at its next step."""
        return self._act(job_id, "pause")

    @one
    def resume(self, job_id: str, *, budget: Budget | None = None) -> Flow[Job]:
        """Lets a paused job go on, with the limits changed that are named."""
        return self._act(job_id, "resume", {"budget": budget} if budget else None)

    @one
    def retry(self, job_id: str, *, budget: Budget | None = None) -> Flow[Job]:
        """Runs a job that failed, was cancelled or expired again, from its last recorded step on."""
        return self._act(job_id, "retry", {"budget": budget} if budget else None)

    @one
    def fork(self, job_id: str, *, idempotency_key: str | None = None, **changes: Unpack[ForkChanges]) -> Flow[Job]:
        """Starts a new job from a step of this one, with changes; the new job."""
        return self._act(job_id, "fork", dict(changes), idempotency_key)

    # ---- what happens to a job

    @each
    def events(self, job_id: str, *, after: str | None = None, patience: float | None = None) -> Feed[Event]:
        """Every event of the job once, in order, until the job has ended; between them, live, its `message.delta`.

        A connection that is lost is taken up again after the last event seen, and one to a platform that is away tried
        for `patience` seconds. `after` is the id of an event that was seen before.
        """
        last, pause = after, 0.0
        while True:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
            request = Send("GET", f"{_job(job_id)}/events", SILENCE_SECONDS, headers=headers, stream="events")
            response = yield from self._answer(request, patience)
            if response.status_code == httpx2.codes.NO_CONTENT:
                return
            try:
                while (received := (yield Read())) is not None:
                    if received.data and received.event != "reset":  # we were too slow for what is live
                        event: Event = json.loads(received.data)
                        last, pause = event.get("id", last), 0.0
                        yield Emit(event)
            except httpx2.SSEError as exc:
                raise UnreachableError(f"{request.path} answers with something else than events: {exc}") from exc
            except httpx2.TransportError:
                pass
            yield Pause(pause)
            pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_RECONNECT_PAUSE)

    @each
    def ledger(self, job_id: str) -> Feed[LedgerRow]:
        """Every money row of the job."""
        return self._pages(f"{_job(job_id)}/ledger")

    @each
    def approvals(self, *, status: str | None = None, job_id: str | None = None) -> Feed[Approval]:
        """The calls that wait, or waited, for a person, the newest first."""
        return self._pages("/v1/approvals", {"status": status, "job_id": job_id})

    @one
    def decide(
        self, approval_id: str, decision: Literal["approve", "deny"], **ruling: Unpack[Ruling]
    ) -> Flow[Approval]:
        """Decides what becomes of a call that waits; the approval as it is now."""
        path = f"/v1/approvals/{_quoted(approval_id)}/decide"
        return self._json("POST", path, {"decision": decision, **ruling})

    # ---- files

    @one
    def upload(self, content: bytes | Path, name: str | None = None) -> Flow[File]:
        """Stores a file, whose id a submission then names; `name` may be left out for a path.

        Raises OSError for a file that cannot be read, ValueError for bytes without a name.
        """
        given = name or (content.name if isinstance(content, Path) else None)
        if given is None:
            raise ValueError("bytes that are uploaded need a name, like upload(b'…', 'sales.csv')")
        headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": _new_key()}
        request = Send("POST", "/v1/files", self.timeout, {"name": given}, headers, content)
        response = yield from self._answer(request)
        record: File = response.json()
        return record

    @each
    def artifacts(self, job_id: str) -> Feed[File]:
        """The files that the job's tools kept."""
        return self._pages(f"{_job(job_id)}/artifacts")

    @each
    def download(self, file_id: str) -> Feed[bytes]:
        """The content of a file, piece by piece."""
        return self._stream(f"/v1/files/{_quoted(file_id)}")

    # ---- money

    @each
    def usage(
        self,
        *,
        by: str | None = None,
        first: str | None = None,
        last: str | None = None,
        agent: str | None = None,
        user: str | None = None,
        model: str | None = None,
    ) -> Feed[UsageRow]:
        """What was used and what it cost. `by` is day, agent, user, model, role, or several with commas; `first` and
        `last` are days in UTC, both included.
        """
        query = {"by": by, "from": first, "to": last, "agent": agent, "user": user, "model": model}
        return self._pages("/v1/usage", query)

    # ---- long-term memory

    @one
    def remember(
        self, user: str, text: str, *, idempotency_key: str | None = None, **fields: Unpack[MemoryFields]
    ) -> Flow[Memory]:
        """Remembers something of a user; the memory, which may be one that was known."""
        return self._json(
            "POST", "/v1/memories", {"user": user, "text": text, **fields}, idempotency_key=idempotency_key
        )

    @each
    def memories(self, user: str, **filters: Unpack[MemoryFilters]) -> Feed[Memory]:
        """What is remembered of a user: with a `query` what fits, the best first; without one all, the newest first."""
        return self._pages("/v1/memories", {"user": user, **filters})

    @one
    def forget(self, memory_id: str) -> Flow[None]:
        """Forgets a memory for good."""
        return self._json("DELETE", f"/v1/memories/{_quoted(memory_id)}")

    @one
    def forget_user(self, user: str, *, jobs: bool = False) -> Flow[Forgotten]:
        """Forgets a user for good: memories and sessions, and with `jobs` their ended jobs."""
        return self._json("DELETE", "/v1/memories", query={"user": user, "jobs": jobs})

    # ---- who did what

    @each
    def audit(self, **filters: Unpack[AuditFilters]) -> Feed[AuditEntry]:
        """The changes by the API, and the attempts at some, that fit, the newest first."""
        return self._pages("/v1/audit", {"limit": MOST_IN_A_PAGE, **filters})

    # ---- everything else

    @one
    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Flow[Any]:
        """The answer of any endpoint, None when it is empty. Parameters that are None are left out."""
        return self._json(method, path, body, query=query, idempotency_key=idempotency_key, timeout=timeout)

    @each
    def stream(self, path: str, query: Mapping[str, Any] | None = None) -> Feed[bytes]:
        """A long answer of any endpoint as it comes, piece by piece; one that breaks off raises UnreachableError."""
        return self._stream(path, query)

    def _act(
        self, job_id: str, action: str, body: dict[str, Any] | None = None, idempotency_key: str | None = None
    ) -> Flow[Job]:
        return self._json("POST", f"{_job(job_id)}/{action}", body, idempotency_key=idempotency_key)

    def _json(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Flow[Any]:
        headers = {"Idempotency-Key": idempotency_key or _new_key()} if method == "POST" else {}
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers |= {} if body is None else {"Content-Type": "application/json"}
        request = Send(method, path, self.timeout if timeout is None else timeout, query or {}, headers, content)
        response = yield from self._answer(request)
        return response.json() if response.content else None

    def _pages(self, path: str, query: Mapping[str, Any] | None = None) -> Feed[Any]:
        cursor: dict[str, str] = {}
        while True:
            page = yield from self._json("GET", path, query={**(query or {}), **cursor})
            for item in page["data"]:
                yield Emit(item)
            if not page["has_more"]:
                return
            cursor = {"after": page["next_cursor"]}

    def _stream(self, path: str, query: Mapping[str, Any] | None = None) -> Feed[bytes]:
        yield from self._answer(Send("GET", path, self.timeout, query or {}, stream="bytes"))
        try:
            while (piece := (yield Read())) is not None:
                yield Emit(piece)
        except httpx2.TransportError as exc:
            raise UnreachableError(f"the answer to GET {path} broke off") from exc

    def _answer(self, request: Send, patience: float | None = None) -> Flow[httpx2.Response]:
        """The 2xx answer to a request, which is repeated if that may help and does no harm."""
        deadline = time.monotonic() + (self.patience if patience is None else patience)
        pause = FIRST_PAUSE
        while True:
            failure: ApiError | UnreachableError
            cause: Exception | None = None
            try:
                response: httpx2.Response = yield request
            except httpx2.TransportError as exc:
                failure, cause = UnreachableError(f"no answer to {request.method} {request.path}: {exc!r}"), exc
                seconds = pause
            else:
                if response.is_success:
                    return response
                failure = ApiError(response.status_code, _problem(response))
                if failure.status not in AWAY_OR_BUSY and failure.code != UNDER_WAY:
                    raise failure
                seconds = max(pause, _retry_after(response))
            if not request.repeatable or time.monotonic() + seconds > deadline:
                raise failure from cause
            yield Pause(seconds * random.uniform(1.0, 1.2))  # noqa: S311 - so that not all come back at once
            pause = min(2 * pause, LONGEST_PAUSE)


def _job(job_id: str) -> str:
    return f"/v1/jobs/{_quoted(job_id)}"


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _new_key() -> str:
    return uuid.uuid4().hex


def _problem(response: httpx2.Response) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {"title": response.reason_phrase}


def _retry_after(response: httpx2.Response) -> float:
    """What the answer asks for, in seconds; 0 when it is a date, or nothing."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0
