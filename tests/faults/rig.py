"""The platform under test, with everything that can be killed within reach, and the client outside it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from agent_core.types import Json, Verdict
from jobs.agents import AgentCatalogue
from jobs.decisions import CallDecision, decide, parking
from jobs.store import JobStore
from tests.faults.checker import check
from tests.faults.client import KEY, Client
from tests.faults.evidence import Evidence, gather, payments
from tests.faults.history import History
from tests.integration.harness import TENANT, Processes, WorkerProcess, eventually, open_link, serve_api
from worker.loader import load_agents, published

AGENTS = str(Path(__file__).with_name("agents.py"))
LEASE = 2
"""Seconds; what `harness.SETTINGS` gives."""


class Rig:
    """Starts and ends the roles, submits orders, decides what waits for a person, and gathers the evidence."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes = processes
        self.redis = processes.redis
        self.folder = folder
        self.link = open_link(processes.redis.url)
        self.store = JobStore(self.link)
        self.history = History(folder / "history.jsonl")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.client = Client(f"http://127.0.0.1:{self.port}", self.history, folder / "api.log")
        self.api: WorkerProcess | None = None
        self.ids: dict[str, str] = {}
        self.decided: dict[str, int] = {"happened": 0, "not_happened": 0}

    async def open(self) -> None:
        """Publishes the agent, so that jobs may be submitted before there is a worker, and starts the API."""
        await AgentCatalogue(self.link).publish([published(a) for a in load_agents([AGENTS]).values()])
        self.start_api()

    async def aclose(self) -> None:
        await self.client.aclose()
        await self.link.aclose()
        self.history.close()
        if self.api is not None:
            self.api.kill()

    # ---- roles

    def start_api(self, failpoints: str = "") -> WorkerProcess:
        settings = {
            "NIGHTSHIFT_REDIS_URL": self.redis.url,
            "NIGHTSHIFT_PORT": str(self.port),
            "NIGHTSHIFT_ADMIN_KEY": KEY,
            "NIGHTSHIFT_DATA_DIR": str(self.folder / "data"),
            "NIGHTSHIFT_FAILPOINTS": failpoints,
            "NIGHTSHIFT_WEBHOOK_ALLOW_PRIVATE": "1",
        }
        self.api = WorkerProcess(settings, self.folder / "api.log", serve_api)
        return self.api

    def start_worker(self, failpoints: str = "", **settings: str | int | float) -> WorkerProcess:
        return self.processes.start_worker(agents=AGENTS, failpoints=failpoints, **settings)

    # ---- orders

    def turns(self, order: str, hold: str = "", latency: float = 0.0) -> list[Json]:
        """A job that pays in every way there is, looks the order up and says so."""
        given = {"folder": str(self.folder), "order": order}
        pays = [{"tool": way, "input": given, "latency": latency} for way in ("charge", "wire", "refund")]
        looks = {"tool": "look", "input": {**given, "hold": hold}, "latency": latency}
        return [*pays, looks, {"text": f"paid {order}", "latency": latency}]

    async def submit(self, order: str, hold: str = "", latency: float = 0.0) -> str:
        """Submits one, in a session of its own; its id."""
        turns = self.turns(order, hold, latency)
        self.ids[order] = await self.client.submit(order, *turns, session_id=f"s-{order}")
        return self.ids[order]

    async def settle(self, orders: Iterable[str], within: float = 45.0) -> None:
        """Watches orders to their ends, and answers for a person on the way, by what the stub counted."""
        async with asyncio.timeout(within), asyncio.TaskGroup() as group:
            for order in orders:
                group.create_task(self._settle(order))

    async def _settle(self, order: str) -> None:
        while (await self.client.watch(order, self.ids[order]))["status"] == "requires_action":
            await self._decide(order)

    async def _decide(self, order: str) -> None:
        job_id = self.ids[order]
        waiting = parking(await self.store.lines(job_id)).data["calls"]
        keys = {payment.key for payment in payments(self.folder)}
        decisions = []
        for call in waiting:
            verdict: Verdict = "happened" if f"{job_id}.{call['call_id']}" in keys else "not_happened"
            self.decided[verdict] += 1
            decisions.append(CallDecision(call["call_id"], verdict, f"wire {order}"))
        await decide(self.store, TENANT, job_id, decisions, by="the suite")

    def paid(self, way: str) -> int:
        return sum(payment.way == way for payment in payments(self.folder))

    def release(self, hold: str) -> None:
        (self.folder / hold).touch()

    # ---- what became of it

    async def evidence(self) -> Evidence:
        calls = await self.processes.simulator.calls()
        return await gather(self.link, TENANT, self.history, calls, str(self.folder))

    async def verify(self, *, least_completed: int) -> Evidence:
        """The evidence, in which nothing is wrong; fails the test otherwise."""
        evidence = await self.evidence()
        faults = check(evidence, least_completed=least_completed)
        assert not faults, "\n".join(faults[:40])
        return evidence


async def killed(processes: Iterable[WorkerProcess], within: float = 20.0) -> None:
    """Returns when each has killed itself; fails the test when one is still there, or left otherwise."""
    for process in processes:
        assert await process.exited(within) == -9, process.tail()


async def stopped(process: WorkerProcess, within: float = 20.0) -> None:
    """Returns when the process has stopped itself."""

    def probe() -> bool:
        assert process.alive, process.tail()
        return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED

    await eventually(probe, lambda: f"its stop\n{process.tail()}", within)


def percentile(values: list[float], share: float) -> float:
    """By the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def now() -> float:
    return time.monotonic()
