"""From a validated submission to a job in the store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import replace
from typing import Any

from fastapi import Request
from pydantic import ValidationError

from agent_core.failpoints import failpoint
from agent_core.types import Budget
from api.errors import FieldsError, RefusedError
from api.guard import Guard
from api.schemas import Fork, Submission
from api.targets import check_url
from jobs import actions
from jobs.agents import AgentCatalogue, Published
from jobs.errors import InvalidError, NotFoundError
from jobs.files import FileStore
from jobs.link import milliseconds
from jobs.moves import Idempotency, Submitted
from jobs.records import JobSpec
from jobs.store import JobStore

AGENT_SECONDS = 1.0
"""How long a process goes by an agent's current version before it asks again."""
LONGEST_KEY = 255


class Intake:
    """Checks what a submission refers to, and submits it."""

    def __init__(
        self, store: JobStore, agents: AgentCatalogue, files: FileStore, guard: Guard, webhook_allow_private: bool
    ) -> None:
        self._store = store
        self._agents = agents
        self._files = files
        self._guard = guard
        self._webhook_allow_private = webhook_allow_private
        self._current: dict[str, tuple[float, Published]] = {}

    async def submit(
        self, tenant: str, body: Submission, idempotency: Idempotency | None = None, by: str | None = None
    ) -> Submitted:
        """Submits a job for the API key `by`.

        Raises InvalidError for what cannot be run, IdempotencyError, UnavailableError.
        """
        self._guard.require()
        try:
            spec, budget = await self.prepare(tenant, body)
        except InvalidError as refusal:
            return await self._earlier(tenant, idempotency, refusal)
        spec = replace(spec, submitted_by=by)
        submitted = await self._store.submit(tenant, spec, budget, idempotency=idempotency)
        failpoint("api_after_submit")
        return submitted

    async def submit_raw(
        self, tenant: str, body: Any, idempotency: Idempotency | None = None, by: str | None = None
    ) -> Submitted:
        """Submits one item of a batch. Raises FieldsError for a body that is no submission, and as `submit` does."""
        try:
            submission = Submission.model_validate(body)
        except ValidationError as exc:
            raise FieldsError.of(exc) from None
        return await self.submit(tenant, submission, idempotency, by)

    async def fork(
        self, tenant: str, job_id: str, body: Fork, idempotency: Idempotency | None = None, by: str | None = None
    ) -> Submitted:
        """Starts a new job from a step of another, for the API key `by`.

        Raises InvalidError, NotFoundError, UnavailableError.
        """
        self._guard.require()
        try:
            _check_times(body.run_at, body.expires_at)
        except InvalidError as refusal:
            return await self._earlier(tenant, idempotency, refusal)
        return await actions.fork(
            self._store,
            tenant,
            job_id,
            step=body.step,
            changes={**body.changes(), "submitted_by": by},
            budget=body.budget.changes() if body.budget else None,
            message=body.message,
            idempotency=idempotency,
        )

    async def _earlier(self, tenant: str, idempotency: Idempotency | None, refusal: InvalidError) -> Submitted:
        """The first answer to what was accepted once, also when it would be refused now. Raises the refusal."""
        first = await self._store.earlier(tenant, idempotency) if idempotency else None
        if first is None:
            raise refusal
        return first

    async def prepare(self, tenant: str, body: Submission) -> tuple[JobSpec, Budget]:
        """What would be submitted. Raises InvalidError for what cannot be run."""
        _check_times(body.run_at, body.expires_at)
        agent = await self._agent(body.agent)
        if body.files:
            await self._check_files(tenant, body.files)
        if body.webhook:
            check_url(body.webhook.url, allow_private=self._webhook_allow_private)
        spec = JobSpec(
            agent=agent.name,
            agent_version=agent.version,
            pool=agent.pool,
            input=body.input,
            priority=body.priority,
            service=body.service,
            files=body.files,
            session_id=body.session_id,
            user=body.user,
            run_at=body.run_at,
            expires_at=body.expires_at,
            tags=body.tags,
            metadata=body.metadata,
            webhook=body.webhook.model_dump() if body.webhook else None,
            output_schema=body.output_schema,
            concurrency=body.concurrency.model_dump() if body.concurrency else None,
        )
        return spec, agent.budget.override(body.budget.changes()) if body.budget else agent.budget

    async def _agent(self, name: str) -> Published:
        known = self._current.get(name)
        now = time.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        try:
            agent = await self._agents.get(name)
        except NotFoundError as exc:
            raise InvalidError(str(exc), code=exc.code) from None
        self._current[name] = (now + AGENT_SECONDS, agent)
        return agent

    async def _check_files(self, tenant: str, ids: list[str]) -> None:
        try:
            records = await asyncio.gather(*(self._files.get(tenant, file_id) for file_id in ids))
        except NotFoundError as exc:
            raise InvalidError(str(exc), code=exc.code) from None
        names = [record.name for record in records]
        if len(set(names)) < len(names):
            raise InvalidError("two of the files have the same name", code="file_name_twice")


def idempotency_of(request: Request) -> str | None:
    """The request's Idempotency-Key. Raises RefusedError for one that is empty, too long or not printable."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise RefusedError(
            422, "invalid_idempotency_key", f"an Idempotency-Key has 1 to {LONGEST_KEY} printable ASCII characters"
        )
    return key


def fingerprinted(request: Request, key: str, body: Any, part: str = "") -> Idempotency:
    """An idempotency key and what its request asks for; `part` tells the parts of one request apart."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    what = f"{request.method} {request.url.path}\n{part}\n{canonical}"
    return Idempotency(_sha256(f"{key}\n{part}"), _sha256(what))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check_times(run_at: int | None, expires_at: int | None) -> None:
    now = milliseconds()
    times = {"run_at": run_at, "expires_at": expires_at}
    errors = [
        {"field": field, "message": "lies in the past"}
        for field, value in times.items()
        if value is not None and value <= now
    ]
    if not errors and run_at is not None and expires_at is not None and expires_at <= run_at:
        errors = [{"field": "expires_at", "message": "must be later than run_at"}]
    if errors:
        raise FieldsError(errors)
