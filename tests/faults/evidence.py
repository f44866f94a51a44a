"""What an experiment leaves behind: the client's history, the journals, the model's log and the payments."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from agent_core.types import Json
from jobs import keys
from jobs.journal import Line
from jobs.link import RedisLink
from jobs.records import Job
from jobs.store import JobStore
from tests.faults.history import History

WAYS = ("charge", "wire", "refund", "look")
"""The tools of `tests.faults.agents`."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One time that a tool had its effect; `at` is in seconds."""

    way: str
    order: str
    key: str
    at: float


@dataclass
class Evidence:
    """All of it, at one moment. `orders` gives each job's order by the job's id, `calls` are the simulated model's."""

    history: History
    jobs: dict[str, Job] = field(default_factory=dict)
    journals: dict[str, list[Line]] = field(default_factory=dict)
    calls: list[Json] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)

    @cached_property
    def orders(self) -> dict[str, str]:
        return {job_id: order for order, ids in self.history.accepted().items() for job_id in ids}

    def paid(self) -> dict[tuple[str, str], list[Payment]]:
        """The payments by way and order."""
        found: dict[tuple[str, str], list[Payment]] = defaultdict(list)
        for payment in self.payments:
            found[payment.way, payment.order].append(payment)
        return dict(found)


async def gather(link: RedisLink, tenant: str, history: History, calls: list[Json], folder: str) -> Evidence:
    """Reads it all, once the experiment is over."""
    store, evidence = JobStore(link), Evidence(history, calls=calls, payments=payments(Path(folder)))
    ids = [raw.decode() for raw in await link.command("ZRANGE", keys.all_jobs(tenant), 0, -1)]
    evidence.jobs = dict(zip(ids, await asyncio.gather(*(store.get(tenant, job_id) for job_id in ids)), strict=True))
    evidence.journals = dict(zip(ids, await asyncio.gather(*map(store.lines, ids)), strict=True))
    return evidence


def payments(folder: Path) -> list[Payment]:
    """What the counting stub counted. A line that is still being written is not counted yet."""
    found = []
    for way in WAYS:
        path = folder / way
        whole, _, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
        for line in whole.splitlines():
            key, order, at = line.split()
            found.append(Payment(way, order, key, float(at)))
    return found
