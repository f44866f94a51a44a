"""Submits the jobs of slots that fire: once for each slot, whoever does it and however often."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from agent_core.errors import AgentError
from agent_core.failpoints import failpoint
from agent_core.types import Json
from jobs import actions
from jobs.agents import AgentCatalogue
from jobs.errors import ConflictError, InvalidError, NotFoundError, StoppedError
from jobs.records import DamagedRecordError, Job, JobSpec, rfc3339
from jobs.schedules import Row, Schedule, Schedules
from jobs.store import JobStore
from jobs.templates import fill, names_in

MOST_LOOKED_AT = 50
"""Rows of the ledger among which the last run is looked for."""
LONGEST_OUTPUT = 100_000
"""Characters of the last run's output that a template takes."""


class Launcher:
    """Turns slots of the ledger into jobs. Raises UnavailableError; then the slot is still to be submitted."""

    def __init__(self, schedules: Schedules, store: JobStore, agents: AgentCatalogue) -> None:
        self._schedules = schedules
        self._store = store
        self._agents = agents

    async def submit(self, schedule_id: str, slot: str) -> Job | None:
        """Submits a slot's job and takes that down; None when it cannot be, for a reason that the ledger then has."""
        schedule = await self._schedules.find(schedule_id)
        (row,) = await self._schedules.rows(schedule_id, [slot])
        if schedule is None or row is None:
            await self._schedules.settle(schedule_id, slot)  # it was removed meanwhile
            return None
        replacing = schedule.spec.overlap == "cancel_previous" and row.reason != "triggered"
        if replacing:
            await self._cancel(schedule, row, newer=False)
        try:
            job = await self._submit(schedule, row)
        except (InvalidError, NotFoundError, StoppedError) as exc:
            await self._schedules.settle(schedule_id, slot, exc.code)
            return None
        failpoint("after_slot_submit")
        if replacing:
            await self._cancel(schedule, row, newer=True)
        await self._schedules.settle(schedule_id, slot)
        return job

    async def _submit(self, schedule: Schedule, row: Row) -> Job:
        given: Json = dict(schedule.spec.job)
        agent = await self._agents.get(given["agent"])
        limits = given.pop("budget", None)
        try:
            budget = agent.budget.override(limits) if limits else agent.budget
            spec = JobSpec(**given)
        except (TypeError, ValueError, AgentError) as exc:  # written by another version of the platform
            raise InvalidError(f"schedule {schedule.id}: {exc}") from exc
        about = {"schedule_id": schedule.id, "scheduled_at": rfc3339(row.at)}
        spec = replace(
            spec,
            agent_version=agent.version,
            pool=agent.pool,
            input=fill(spec.input, await self._values(schedule, row)),
            user=spec.user or schedule.id,
            metadata={**spec.metadata, **about},
            submitted_by=schedule.created_by,
        )
        return (await self._store.submit(schedule.tenant, spec, budget, job_id=row.job)).job

    async def _values(self, schedule: Schedule, row: Row) -> Json:
        """What the names of the template stand for."""
        asked = names_in(schedule.spec.job["input"])
        last = await self._last_run(schedule, row) if asked - {"scheduled_at"} else None
        return {
            "scheduled_at": rfc3339(row.at),
            "last_run.id": last and last.id,
            "last_run.output": last and _short(last.output),
        }

    async def _last_run(self, schedule: Schedule, row: Row) -> Job | None:
        """The newest run before this one that completed."""
        for before in await self._schedules.newest(schedule.id, MOST_LOOKED_AT):
            if before.at < row.at and before.outcome not in ("skipped", "waiting"):
                with suppress(NotFoundError, DamagedRecordError):
                    job = await self._store.get(schedule.tenant, before.job)
                    if job.status == "completed":
                        return job
        return None

    async def _cancel(self, schedule: Schedule, row: Row, *, newer: bool) -> None:
        """Cancels the runs before this one; or this one, when a newer one came while it was being submitted."""
        runs = await self._schedules.open_runs(schedule.id)
        rows = await self._schedules.rows(schedule.id, list(runs.values()))
        others = [other for other in rows if other is not None and other.reason != "triggered"]
        if newer:
            ended = [row.job] if any(other.at > row.at for other in others) else []
        else:
            ended = [other.job for other in others if other.at < row.at]
        for job_id in ended:
            with suppress(ConflictError, NotFoundError, DamagedRecordError):
                await actions.cancel(self._store, schedule.tenant, job_id)


def _short(output: Any) -> Any:
    return output[:LONGEST_OUTPUT] if isinstance(output, str) else output
