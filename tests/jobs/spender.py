"""Spends a job's money as its worker would: calls of a model that reserve and settle, with rows in the journal."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

from agent_core.entries import Entry, ModelCompleted, ModelFailed, ModelStarted, entry_to_json
from agent_core.errors import BudgetError
from agent_core.outcomes import Refusal
from agent_core.types import USAGE_FIELDS, Json, Role
from jobs.budgets import Budgets
from jobs.money import money_of
from jobs.moves import Attempt, Hold
from jobs.ports import Store
from jobs.records import Job
from jobs.store import JobStore
from tests.jobs.driver import Driver

USAGE = {
    "input_tokens": 100,
    "output_tokens": 20,
    "cache_read_input_tokens": 300,
    "cache_creation_input_tokens": 7,
}
TOKENS = 427
NUMBERS = count(1)


async def write(store: Store, job_id: str, token: str, number: int, *entries: Entry) -> int:
    """A numbered write of the loop's entries, with the money that they move."""
    counters: Counter[str] = Counter()
    for entry in entries:
        usage = getattr(entry, "usage", None) or {}
        counters.update({name: usage[field] for name, field in USAGE_FIELDS if usage.get(field)})
    lines = [(entry.TYPE, entry_to_json(entry)) for entry in entries]
    return await store.record(job_id, token, number, counters, lines, money_of(entries))


class Spender:
    """A running job. Amounts are micro-dollars."""

    def __init__(self, store: Store, job: Job, attempt: Attempt) -> None:
        self.store = store
        self.job = job
        self.attempt = attempt
        self.written = 0

    @classmethod
    async def start(cls, store: Store, **spec: Any) -> Spender:
        return cls(store, *await Driver(store).start(**spec))

    async def begin(self, reserved: int = 900, tokens: int = 2000, model: str = "m", role: Role = "executor") -> str:
        """Reserves a call; its id. Raises BudgetError."""
        call_id = f"c{next(NUMBERS)}"
        await self._write(ModelStarted(call_id, 1, model, reserved, tokens, 512, "p", role))
        return call_id

    async def end(
        self,
        call_id: str,
        settled: int = 70,
        usage: Json | None = USAGE,
        *,
        reserved: int = 900,
        model: str = "m",
        role: Role = "executor",
    ) -> None:
        given = (usage, "p", reserved, settled, "settled", 0.0, role)
        await self._write(ModelCompleted(call_id, 1, model, [], "end_turn", *given))

    async def fail(self, call_id: str, settled: int, reason: str, reserved: int = 900) -> None:
        """Ends a call without a reply: `released` at 0 or `worst_case` at what was reserved."""
        await self._write(ModelFailed(call_id, 1, "m", "cut", "", None, "p", reserved, settled, reason))

    async def spend(
        self, settled: int = 70, usage: Json | None = USAGE, model: str = "m", role: Role = "executor"
    ) -> str:
        """A whole call."""
        call_id = await self.begin(model=model, role=role)
        await self.end(call_id, settled, usage, model=model, role=role)
        return call_id

    async def refused(self, reserved: int = 900, tokens: int = 2000) -> Refusal:
        """Why a call does not fit; fails when it does."""
        try:
            await self.begin(reserved, tokens)
        except BudgetError as exc:
            return exc.refusal
        raise AssertionError("the call fits")

    async def hold(self, refusal: Refusal) -> None:
        """Pauses the job for a refusal, as its worker does: on Redis, whose budgets may have changed meanwhile."""
        assert isinstance(self.store, JobStore)
        hold = Hold(refusal.held_by, refusal.until_ms)
        await self.store.move(self.job, "hold", attempt=self.attempt, stop_reason="budget_exceeded", hold=hold)
        await Budgets(self.store).let_go_if_changed(self.job.tenant, self.job.id, refusal)

    async def finish(self, action: str = "complete") -> None:
        await self.store.move(self.job, action, attempt=self.attempt, stop_reason="end_turn")

    async def status(self) -> str:
        return (await self.store.get(None, self.job.id)).status

    async def _write(self, entry: Entry) -> None:
        self.written += 1
        await write(self.store, self.job.id, self.attempt.token, self.written, entry)
