"""A platform of real processes for tests: Redis, the simulated model and any number of workers.

Workers are forked off a process that has their imports done, so that each starts in a fraction of a second.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from agent_core.types import Budget, Json
from jobs import fleet
from jobs.agents import AgentCatalogue
from jobs.journal import Line, ledger_rows
from jobs.link import RedisLink, connect
from jobs.records import Job, JobSpec
from jobs.settings import load
from jobs.store import JobStore
from tests.redis_server import RedisServer

AGENTS = Path(__file__).with_name("agents.py")
TENANT = "default"
POLL_SECONDS = 0.01
SETTINGS = {
    "NIGHTSHIFT_AGENTS": str(AGENTS),
    "NIGHTSHIFT_SIMULATE": "1",
    "NIGHTSHIFT_LOG_FORMAT": "json",
    "NIGHTSHIFT_LEASE_SECONDS": "2",
    "NIGHTSHIFT_DRAIN_SECONDS": "1",
}
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["tests.integration.harness", "worker.main", "api.main"])


async def eventually(probe: Callable[[], Any], what: str | Callable[[], str], within: float = 15.0) -> Any:
    """Waits until `probe`, async or not, gives something true, and returns that; fails the test after `within` seconds.

    What an assertion inside the probe says is part of the failure's message.
    """
    deadline, found, why = time.monotonic() + within, None, ""
    while True:
        try:
            found = probe()
            if inspect.isawaitable(found):
                found = await found
            why = f"last seen: {found!r}"
        except AssertionError as exc:
            found, why = None, str(exc)
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s: {what() if callable(what) else what}; {why}")
        await asyncio.sleep(POLL_SECONDS)


def script(*turns: Json, **options: Any) -> str:
    """The input of a job that makes the simulated model say these turns."""
    return f"#sim {json.dumps({'turns': turns, **options})}"


def says(text: str, **options: Any) -> Json:
    return {"text": text, **options}


def calls(tool: str, **given: Any) -> Json:
    return {"tool": tool, "input": given}


def become(settings: dict[str, str], log: str) -> None:
    """Gives this process the settings of a role of the platform, and a log."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for name in [name for name in os.environ if name.startswith("NIGHTSHIFT_") or name == "ANTHROPIC_API_KEY"]:
        del os.environ[name]
    os.environ.update(settings)


def serve_worker(settings: dict[str, str], log: str) -> None:
    """The body of a worker process: the entry of `nightshift worker` with other settings."""
    become(settings, log)
    from worker.main import serve
    from worker.settings import Settings

    sys.exit(serve(load(Settings)))


def serve_api(settings: dict[str, str], log: str) -> None:
    """The body of an API process."""
    become(settings, log)
    from api.main import serve
    from api.settings import Settings

    serve(load(Settings))


class WorkerProcess:
    """One worker process, or another role's. `name` is known once a worker has reported in."""

    def __init__(
        self, settings: dict[str, str], log: Path, role: Callable[[dict[str, str], str], None] = serve_worker
    ) -> None:
        self.log = log
        self.name = ""
        self._process: ForkServerProcess = forks.Process(target=role, args=(settings, str(log)), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self.signal(signal.SIGKILL)
        self._process.join(5)

    async def exited(self, within: float) -> int:
        """Its exit status; fails the test when it is still there after `within` seconds."""
        await eventually(lambda: self._process.exitcode is not None, lambda: f"its exit\n{self.tail()}", within)
        assert self._process.exitcode is not None
        return self._process.exitcode

    @property
    def alive(self) -> bool:
        return self._process.exitcode is None

    def logged(self, text: str) -> bool:
        return self.log.exists() and text in self.log.read_text()

    def tail(self) -> str:
        """The end of its log, for messages."""
        return self.log.read_text()[-3000:] if self.log.exists() else ""


class Simulator:
    """The simulated model at a URL, and what it saw."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _fetch(self, path: str, method: str = "GET") -> Any:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, method=method), timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    async def calls(self) -> list[Json]:
        found: list[Json] = await asyncio.to_thread(self._fetch, "/_sim/calls")
        return found

    async def stats(self) -> Json:
        found: Json = await asyncio.to_thread(self._fetch, "/_sim/stats")
        return found

    def forget(self) -> None:
        self._fetch("/_sim/calls", "DELETE")


class Processes:
    """What outlives a test of a module: Redis and the workers on it."""

    def __init__(self, redis: RedisServer, simulator: Simulator, folder: Path) -> None:
        self.redis = redis
        self.simulator = simulator
        self.folder = folder
        self.workers: list[WorkerProcess] = []

    def start_worker(self, **settings: str | int | float) -> WorkerProcess:
        """Starts a worker; settings are given without their prefix, in lower case."""
        given = {f"NIGHTSHIFT_{name.upper()}": str(value) for name, value in settings.items()}
        places = {
            "NIGHTSHIFT_REDIS_URL": self.redis.url,
            "NIGHTSHIFT_MODEL_BASE_URL": self.simulator.url,
            "NIGHTSHIFT_DATA_DIR": str(self.folder / "data"),
        }
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = WorkerProcess({**SETTINGS, **places, **given}, log)
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.redis.kill()
        shutil.rmtree(self.redis.directory, ignore_errors=True)


class Platform:
    """A test's view of the processes: submits jobs, watches them, and reads the traces that their tools leave."""

    def __init__(self, processes: Processes, link: RedisLink, folder: Path) -> None:
        self.processes = processes
        self.simulator = processes.simulator
        self.redis = processes.redis
        self.link = link
        self.store = JobStore(link)
        self.folder = str(folder)

    # ---- workers

    async def start_worker(self, **settings: str | int | float) -> WorkerProcess:
        """A worker that has reported in."""
        worker = self.processes.start_worker(**settings)
        await self.reported(worker)
        return worker

    async def reported(self, worker: WorkerProcess) -> None:
        async def name() -> str:
            assert worker.alive, worker.tail()
            return next((w.name for w in await fleet.workers(self.link) if w.pid == worker.pid), "")

        worker.name = await eventually(name, "the worker's report", within=30)

    # ---- jobs

    async def spec(self, text: Any, agent: str = "tester", **fields: Any) -> tuple[JobSpec, Budget]:
        """A submission for the newest version of an agent, and the agent's budget."""
        published = await AgentCatalogue(self.link).get(agent)
        return JobSpec(agent=agent, input=text, agent_version=published.version, **fields), published.budget

    async def submit(self, *turns: Json, budget: Json | None = None, key: str = "", **fields: Any) -> str:
        """Submits a job that plays these turns; returns its id."""
        spec, limits = await self.spec(script(*turns, key=key or os.urandom(6).hex()), **fields)
        return (await self.store.submit(TENANT, spec, limits.override(budget or {}))).job.id

    async def job(self, job_id: str) -> Job:
        return await self.store.get(TENANT, job_id)

    async def becomes(self, job_id: str, status: str, within: float = 15.0) -> Job:
        """The job once it has a status; fails at once when it ends in another."""

        async def probe() -> Job | None:
            job = await self.job(job_id)
            if job.ended and job.status != status:
                pytest.fail(f"{job_id} is {job.status}, not {status}: {job.stop_reason} {job.error} {self.tails()}")
            return job if job.status == status else None

        found: Job = await eventually(probe, f"{job_id} {status} (it is {(await self.job(job_id)).status})", within)
        return found

    async def all_become(self, job_ids: Iterable[str], status: str, within: float = 30.0) -> list[Job]:
        deadline = time.monotonic() + within
        return [await self.becomes(job_id, status, max(0.1, deadline - time.monotonic())) for job_id in job_ids]

    async def lines(self, job_id: str, type_: str | None = None) -> list[Line]:
        """The job's journal, or its lines of one type."""
        return [line for line in await self.store.lines(job_id) if type_ in (None, line.type)]

    async def types(self, job_id: str) -> list[str]:
        return [line.type for line in await self.store.lines(job_id)]

    async def ledger(self, job_id: str) -> list[Json]:
        return ledger_rows(job_id, await self.store.lines(job_id))

    # ---- traces

    def trace(self, name: str) -> list[str]:
        """The lines that the calls of a tool left: call id, a space, text."""
        path = Path(self.folder) / name
        return path.read_text().splitlines() if path.exists() else []

    async def traced(self, name: str, count: int = 1) -> list[str]:
        """The lines of a tool's trace once there are so many."""
        await eventually(lambda: len(self.trace(name)) >= count, lambda: f"{count} lines of {name}{self.tails()}")
        return self.trace(name)

    def release(self, hold: str) -> None:
        """Lets the tool calls go on that hold for a file."""
        (Path(self.folder) / hold).touch()

    def tails(self) -> str:
        return "".join(f"\n--- {worker.log.name}\n{worker.tail()}" for worker in self.processes.workers)


def open_link(url: str) -> RedisLink:
    return RedisLink(connect(url))
