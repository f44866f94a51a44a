"""The jobs to which a job delegates: started once for each call, and asked what became of them."""

from __future__ import annotations

import hashlib

from agent_core.context import Pending
from agent_core.errors import ToolError
from agent_core.types import Json, is_amount, usd
from jobs.agents import AgentCatalogue
from jobs.errors import NotFoundError, StoppedError
from jobs.moves import Child
from jobs.records import Job, JobSpec
from jobs.store import JobStore

DEEPEST = 5
"""So many jobs may stand above one: an agent that delegates to itself must end."""


class ChildJobs:
    """A job's children. See `agent_core.context.Children`.

    A child's id follows from its parent's and the call's, so that a call that is made again finds it.
    """

    def __init__(self, store: JobStore, parent: Job) -> None:
        self._store = store
        self._parent = parent

    async def delegate(self, call_id: str, agent: str, task: str, usd: str | None) -> Pending | Json:
        child_id = derived_id(self._parent.id, call_id)
        child = (await self._store.get_many([child_id]))[0]
        if child is None:
            await self._start(child_id, agent, task, usd)
            return Pending(child_id)
        return _report(child) if child.ended else Pending(child_id)

    async def _start(self, child_id: str, agent: str, task: str, limit: str | None) -> None:
        if len(self._parent.spec.ancestors) >= DEEPEST:
            raise ToolError(f"there are {DEEPEST} jobs above this one already; do it here", code="too_deep")
        if limit is not None and not is_amount(limit):
            why = f'usd is {limit!r}; expected a decimal string above 0, like "0.25"'
            raise ToolError(why, code="invalid_arguments")
        try:
            found = await AgentCatalogue(self._store.link).get(agent)
        except NotFoundError as exc:
            raise ToolError(str(exc), code=exc.code) from exc
        above = self._parent.spec
        spec = JobSpec(
            agent=found.name,
            input=task,
            files=above.files,
            agent_version=found.version,
            pool=found.pool,
            priority=above.priority,
            service=above.service,
            user=above.user,
            tags=above.tags,
        ).under(self._parent)
        budget = found.budget if limit is None else found.budget.override({"usd": limit})
        try:
            await self._store.submit(self._parent.tenant, spec, budget, child=Child(child_id, self._parent.token))
        except StoppedError as exc:
            raise ToolError(str(exc), code="stopped", retryable=True) from exc


def derived_id(job_id: str, what: str) -> str:
    """The id of the job that comes of something in another one, the same however often it is asked for."""
    made = job_id.partition("_")[2][:12]  # the other's time: ids sort by their age
    return f"job_{made}{hashlib.sha256(f'{job_id}/{what}'.encode()).hexdigest()[:20]}"


def _report(child: Job) -> Json:
    if child.status == "completed":
        cost = usd(child.counters.get("spent", 0))
        return {"job_id": child.id, "status": child.status, "output": child.output, "cost_usd": cost}
    why = (child.error or {}).get("message") or child.stop_reason or child.status
    partial = f"; its partial result: {child.output}" if child.output else ""
    raise ToolError(f"{child.spec.agent} did not do it ({child.status}): {why}{partial}", code=f"child_{child.status}")
