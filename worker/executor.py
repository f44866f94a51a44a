"""One attempt of one job: restore, run the loop, and write down how it ended."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import structlog

from agent_core.agent import Agent
from agent_core.approvals import Policy
from agent_core.defaults import AlwaysClosed
from agent_core.errors import KilledError, ModelError, StaleAttemptError, UnknownPriceError
from agent_core.failpoints import failpoint
from agent_core.guardrails import Guard
from agent_core.loop import Ports, run
from agent_core.messages import without_attachments, without_blocks
from agent_core.outcomes import (
    Batched,
    Completed,
    Deferred,
    Delegated,
    Held,
    Outcome,
    Paused,
    Refusal,
    Stopped,
    Suspended,
)
from agent_core.outputs import Output
from agent_core.ports import Breakers, Model
from agent_core.redaction import Redactor
from agent_core.tools import ToolContext
from agent_core.types import Json
from jobs import keys
from jobs.batches import LONGEST_MS, BatchWaits
from jobs.budgets import Budgets
from jobs.errors import NotFoundError
from jobs.estimate import remember
from jobs.files import FileStore, JobArtifacts
from jobs.money import reached
from jobs.moves import Attempt, Hold
from jobs.queue import Claim
from jobs.records import Job, Service
from jobs.rulings import APPROVAL
from jobs.stats import Stats
from jobs.store import JobStore
from memory.errors import EmbeddingError
from memory.session import Fence, SessionMemory
from memory.setup import LazyMemory
from worker.approvals import requests
from worker.children import ChildJobs
from worker.decisions import take_over
from worker.durable import SHAPES_ALONE, DurableJournal, LiveText
from worker.embedding import charge_to
from worker.job_memory import AWAY_MS, JobMemory, NothingToDo, PutOff, memory_of
from worker.restore import Restored, restore, session_of

MOST_DEFERRALS = 8
LONGEST_DEFERRAL = 300.0
ASKED_MS = 60_000
LONGEST_CHILD_MS = 7 * 24 * 3600 * 1000
"""A job that has waited so long for its children looks after them itself."""
LONGEST_WAIT = 3600.0
"""Seconds; a server may ask for more in its retry-after, and is asked again after this time all the same."""
Interruption = Literal["cancel", "drain", "killed", "lost", "memory away"]
KILLED = "the kill switch is on"
log = structlog.get_logger("worker")


@dataclass(slots=True)
class Attempted:
    """An attempt that this process is running; `reason` says why its task is being cancelled, once it is.

    While its end is being written (`ending`), nothing interrupts it.
    """

    claim: Claim
    task: asyncio.Task[None] | None = None
    journal: DurableJournal | None = None
    reason: Interruption | None = None
    ending: bool = False

    def interrupt(self, reason: Interruption) -> None:
        """Cancels the attempt's task; the first reason counts."""
        if self.reason is None and not self.ending:
            self.reason = reason
            if self.task is not None:
                self.task.cancel()


class Executor:
    """Runs claims. It knows the agents of this worker by "name@version"; `models` is what makes a service's calls."""

    def __init__(
        self,
        store: JobStore,
        files: FileStore,
        models: Mapping[Service, Model],
        agents: Callable[[str], Agent | None],
        stats: Stats,
        workspaces: Path,
        redactor: Redactor = SHAPES_ALONE,
        servers: Mapping[str, Model] = MappingProxyType({}),
        breakers: Breakers | None = None,
        memory: LazyMemory | None = None,
    ) -> None:
        self._store = store
        self._redactor = redactor
        self._servers = servers
        self._breakers = breakers or AlwaysClosed()
        self._files = files
        self._models = models
        self._agents = agents
        self._stats = stats
        self._workspaces = workspaces
        self._sessions = SessionMemory(store.link)
        self._memory = memory
        self._batches = BatchWaits(store.link)
        self.ended: Counter[Literal["successful", "failed"]] = Counter()
        """Jobs that ended since RQ's record of this worker was last written."""

    async def execute(self, attempted: Attempted) -> None:
        """Runs an attempt to its end. Whatever happens is written into the job; nothing is raised."""
        claim = attempted.claim
        attempt = Attempt(claim.token, claim.queue)
        try:
            if claim.job is None:
                await self._set_aside(claim)
            elif claim.job.flag == "cancel":
                attempted.ending = True
                await self._interrupted(claim.job, attempt, "cancel")
            else:
                await self._to_its_end(claim.job, attempt, attempted)
        except StaleAttemptError:
            self._stats.add("fenced_total")
            log.warning("fenced: another attempt owns the job", job=claim.job_id)
        except Exception:
            log.exception("the end of an attempt could not be written; its lease will end", job=claim.job_id)

    async def _to_its_end(self, job: Job, attempt: Attempt, attempted: Attempted) -> None:
        try:
            await self._attempt(job, attempt, attempted)
        except StaleAttemptError:
            raise
        except asyncio.CancelledError:
            attempted.ending = True
            _absorb_cancellation()
            await self._interrupted(job, attempt, attempted.reason or "drain")
        except Exception:
            attempted.ending = True
            log.exception("the attempt failed for a reason of the platform's own", job=job.id)
            await self._fail(job, attempt, "error", "internal", "an unexpected error of the platform; see its log")

    async def _attempt(self, job: Job, attempt: Attempt, attempted: Attempted) -> None:
        agent = self._agents(f"{job.spec.agent}@{job.spec.agent_version}")
        if agent is None:
            await self._store.move(job, "hand_back", {"why": "this worker lost the agent's version"}, attempt=attempt)
            return
        if job.attempts == 1:
            waiting_since = max(job.created_ms, job.spec.run_at or 0)
            self._stats.observe("queue_wait_seconds", max(0, (job.since_ms or 0) - waiting_since) / 1000)
        workspace = self._workspaces / job.id
        live = LiveText(self._store, job, self._redactor)
        journal = DurableJournal(
            self._store,
            job,
            attempt.token,
            self._stats,
            live,
            on_cancel=lambda: attempted.interrupt("cancel"),
            redactor=self._redactor,
        )
        attempted.journal = journal
        charge_to(journal)
        memory = memory_of(
            job, agent, self._memory, self._store, journal, on_away=lambda: attempted.interrupt("memory away")
        )
        restored = await self._restored(job, attempt, attempted, memory)
        if restored is None:
            return
        failpoint("after_restore")
        if restored.fresh and session_of(job) is not None:
            noted = {
                "state": "executing",
                "session_length": restored.session_length,
                "session_generation": restored.session_generation,
            }
            await journal.append({}, [("state.changed", noted)])
        policy = Policy(agent, lambda: restored.state.usage.cost)
        ports = Ports(
            self._models[job.spec.service],
            journal,
            policy,
            live,
            self._context(job, workspace),
            servers=self._servers,
            breakers=self._breakers,
        )
        await take_over(restored.decisions, restored.state, journal, agent.registry, ports.context)
        try:
            with memory.serving():
                outcome = await Guard(agent.guardrails, restored.state, journal, job.spec.input).around(
                    lambda: run(restored.state, agent=agent, budget=job.budget, ports=ports, output=_output(job))
                )
        except KilledError as exc:
            attempted.ending = True
            await self._store.move(job, "hand_back", {"why": str(exc)}, attempt=attempt)
            return
        except (ModelError, UnknownPriceError) as exc:
            code = exc.code if isinstance(exc, ModelError) else "unknown_price"
            outcome = Stopped("error", str(exc), restored.state.last_text(), code)
        finally:
            live.drop()
        if isinstance(outcome, Stopped | Held) and outcome.refusal is not None:
            await journal.append({}, [("budget.reached", reached(outcome.refusal))])
        await asyncio.sleep(0)  # an interruption that came with the last record takes hold here
        attempted.ending = True
        failpoint("before_end")
        await self._settle(job, attempt, outcome, restored, policy, memory)
        failpoint("after_end")
        if isinstance(outcome, Completed | Stopped):
            await remember(self._store.link, self._files, job, outcome.stop_reason)

    async def _restored(self, job: Job, attempt: Attempt, attempted: Attempted, memory: JobMemory) -> Restored | None:
        """What the run goes on from; None when there is none, and the attempt's end is written."""
        workspace = self._workspaces / job.id
        try:
            return await restore(job, self._store, self._sessions, workspace, self._files, memory)
        except NotFoundError as exc:
            attempted.ending = True
            await self._fail(job, attempt, "error", exc.code, str(exc))
        except EmbeddingError as exc:
            attempted.ending = True
            await self._fail(job, attempt, "error", "embedding_failed", str(exc))
        except PutOff as exc:
            attempted.ending = True
            await self._store.move(job, "hand_back", {"why": str(exc)}, attempt=attempt, due_ms=-exc.ms)
        except NothingToDo as exc:
            attempted.ending = True
            await self._end(job, attempt, "complete", {"stop_reason": "end_turn", "output": str(exc)})
        return None

    def _context(self, job: Job, workspace: Path) -> Callable[[str], ToolContext]:
        artifacts = JobArtifacts(self._files, job.tenant, job.token)
        # a model's ids of its calls need not differ from job to job, and an idempotency key must
        children = ChildJobs(self._store, job)
        redact = self._redactor.text
        return lambda call_id: ToolContext(job.id, f"{job.id}.{call_id}", workspace, artifacts, children, redact)

    # ---- endings

    async def _settle(
        self, job: Job, attempt: Attempt, outcome: Outcome, restored: Restored, policy: Policy, memory: JobMemory
    ) -> None:
        match outcome:
            case Completed(output, stop_reason):
                await self._remember(job, attempt, restored, restored.state.messages[restored.state.head - 1 :])
                data = {"stop_reason": stop_reason, "output": output} | await memory.learn()
                await self._end(job, attempt, "complete", data)
            case Stopped(stop_reason, detail, output, code):
                await self._remember(job, attempt, restored, [])
                await self._fail(job, attempt, stop_reason, code or stop_reason, detail, output)
            case Suspended(stop_reason, calls):
                await self._park(job, attempt, stop_reason, calls, policy)
            case Deferred(delay, code, detail):
                await self._defer(job, attempt, restored, delay, code, detail)
            case Paused():
                await self._store.move(job, "suspend", attempt=attempt)
            case Held(refusal):
                await self._hold(job, attempt, refusal)
            case Batched(batch_id, asked):
                await self._wait_for(batch_id, asked, job, attempt)
            case Delegated(job_ids):
                await self._wait_for_children(job_ids, job, attempt)

    async def _park(self, job: Job, attempt: Attempt, stop_reason: str, calls: list[Json], policy: Policy) -> None:
        asks = requests(job, policy, calls) if stop_reason == APPROVAL else []
        ids = {request.call_id: {"approval_id": request.approval_id} for request in asks}
        waiting = [
            {"call_id": c["id"], "tool": c["name"], "input": c["input"], "key": f"{job.id}.{c['id']}"}
            | ids.get(c["id"], {})
            for c in calls
        ]
        data = {"stop_reason": stop_reason, "calls": waiting}
        await self._store.move(job, "park", data, attempt=attempt, stop_reason=stop_reason, asks=asks)

    async def _remember(self, job: Job, attempt: Attempt, restored: Restored, said: list[Json]) -> None:
        """Gives the session what the job said, and the summary of what was said before, if the job had to make one."""
        if (scope := session_of(job)) is None:
            return
        fence = Fence(keys.job(job.id), "token", attempt.token)
        if covered := restored.state.replaced:
            summary = restored.state.messages[0]
            if not await self._sessions.compact(scope, restored.session_generation, covered, summary, fence):
                log.warning("the session changed while the job ran; its summary was not taken over", job=job.id)
        if not said:
            return
        failpoint("before_session_append")
        fresh = [without_blocks(without_attachments(message), restored.remembered) for message in said]
        if not await self._sessions.append(scope, restored.session_length, fresh, fence, job.spec.user):
            log.warning("the session changed while the job ran; its messages were not added", job=job.id)
        failpoint("after_session_append")

    async def _defer(
        self, job: Job, attempt: Attempt, restored: Restored, delay: float, code: str, detail: str
    ) -> None:
        if restored.deferrals >= MOST_DEFERRALS:
            await self._fail(job, attempt, "error", code, f"{detail}; given up after {MOST_DEFERRALS} long waits")
            return
        wait = min(LONGEST_WAIT, max(delay, min(LONGEST_DEFERRAL, 5.0 * 2**restored.deferrals)))
        data = {"deferred": round(wait, 3), "code": code, "detail": detail}
        await self._store.move(job, "hand_back", data, attempt=attempt, due_ms=-max(1, int(wait * 1000)))

    async def _wait_for(self, batch_id: str, asked: bool, job: Job, attempt: Attempt) -> None:
        """Lets the job wait without a worker. Nobody looks soon at a batch that has just been asked in vain."""
        if asked:
            await self._batches.wait(batch_id, job.id, ASKED_MS)
        data = {"batch_id": batch_id, "why": f"the batch {batch_id} has its model call"}
        await self._store.move(job, "hand_back", data, attempt=attempt, due_ms=-LONGEST_MS)

    async def _wait_for_children(self, job_ids: list[str], job: Job, attempt: Attempt) -> None:
        """Lets the job wait without a worker until none of its children is open."""
        data = {"state": "awaiting", "children": job_ids, "why": f"it waits for {len(job_ids)} jobs that it started"}
        await self._store.move(job, "hand_back", data, attempt=attempt, due_ms=-LONGEST_CHILD_MS, for_children=True)

    async def _hold(self, job: Job, attempt: Attempt, refusal: Refusal) -> None:
        data = {"stop_reason": "budget_exceeded", "detail": refusal.detail, "budget": refusal.held_by}
        hold = Hold(refusal.held_by, refusal.until_ms)
        await self._store.move(job, "hold", data, attempt=attempt, stop_reason="budget_exceeded", hold=hold)
        await Budgets(self._store).let_go_if_changed(job.tenant, job.id, refusal)

    async def _fail(
        self, job: Job, attempt: Attempt, stop_reason: str, code: str, message: str, output: str | None = None
    ) -> None:
        error = {"code": code, "message": self._redactor.text(message)}
        data = {"stop_reason": stop_reason, "output": output, "error": error}
        await self._end(job, attempt, "fail", data)

    async def _interrupted(self, job: Job, attempt: Attempt, reason: Interruption) -> None:
        match reason:
            case "cancel":
                await self._end(job, attempt, "stop", {"stop_reason": "cancelled"})
            case "drain":
                failpoint("before_hand_back")
                await self._store.move(job, "hand_back", {"why": "the worker is shutting down"}, attempt=attempt)
                failpoint("after_hand_back")
            case "killed":
                await self._store.move(job, "hand_back", {"why": KILLED}, attempt=attempt)
            case "memory away":
                why = {"why": "long-term memory went away"}
                await self._store.move(job, "hand_back", why, attempt=attempt, due_ms=-AWAY_MS)
            case "lost":
                self._stats.add("fenced_total")
                log.warning("lease lost: another attempt owns the job", job=job.id, attempt=job.attempts)

    async def _end(self, job: Job, attempt: Attempt, action: str, data: Json) -> None:
        await self._store.move(job, action, data, attempt=attempt, stop_reason=data["stop_reason"])
        self.ended["successful" if action == "complete" else "failed"] += 1
        shutil.rmtree(self._workspaces / job.id, ignore_errors=True)
        self._stats.observe("job_duration_seconds", max(0.0, time.time() - (job.started_ms or job.created_ms) / 1000))

    async def _set_aside(self, claim: Claim) -> None:
        """A record that cannot be read is kept for a person and disturbs no other job."""
        log.error("record set aside: it cannot be read", job=claim.job_id, why=claim.damaged)
        await self._store.tickets.set_aside(claim.job_id, claim.token, claim.queue)


def _output(job: Job) -> Output | None:
    """What the submission asks of the answer, instead of what the agent says of it."""
    return None if job.spec.output_schema is None else Output.of(job.spec.output_schema)


def _absorb_cancellation() -> None:
    """The interruption is being dealt with here, so what follows may await again."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
