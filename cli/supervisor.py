"""The whole platform on this machine: Redis, memory, simulated model, API, workers and scheduler, as its children."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from cli import datadir, embedded, probe
from cli.children import Child, Program
from cli.client import Client
from cli.errors import UnreachableError
from cli.ports import LOOPBACK, free_port, reachable, until_open
from cli.settings import (
    ALERT_SECRETS,
    MEMORY_SECRETS,
    MODEL_SECRETS,
    Connection,
    Surroundings,
    child_environment,
    search_path,
)
from jobs.link import RedisLink
from memory.embedded.key import ensure_key

PYTHON = (sys.executable, "-P", "-m")
"""-P: a folder `api` or `worker` where the user happens to stand must not shadow ours."""
QDRANT_URL = "NIGHTSHIFT_QDRANT_URL"
START_SECONDS = 60.0
LOAD_SECONDS = 600.0
"""Redis may have many jobs to load."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start. `port` 0 takes a free one; `agents` is as NIGHTSHIFT_AGENTS has it, "" for none; `tool_settings`
    are variables that their tools read.
    """

    data_dir: Path
    around: Surroundings
    agents: str
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    verbose: bool = False
    tool_settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether the model is the simulated one."""
        around = self.around
        return around.simulate or not (around.model_key or around.model_base_url)


class Platform:
    """A running platform. Entering it returns when a submit would be accepted and each worker is live.

    Raises UsageError for a directory or port in use, ChildError when a process cannot be kept running.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.url = ""
        self.key = ""
        self.hurry = asyncio.Event()
        """Set it to end the children without their grace."""
        self.closing = False
        """Whether it is being stopped; that must not be cancelled."""
        self._children: list[Child] = []
        self._stack = AsyncExitStack()
        self._environment: dict[str, str] = {}

    @property
    def connection(self) -> Connection:
        """How a client on this machine reaches the platform."""
        return Connection(self.url, self.key, "this platform")

    @property
    def data_dir(self) -> Path:
        return self.plan.data_dir.absolute()

    async def __aenter__(self) -> Platform:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.closing = True
        await self._stack.aclose()

    async def failed(self) -> None:
        """Waits for ever, or raises the ChildError of the first process that cannot be kept running."""
        done, _ = await asyncio.wait([c.running for c in self._children], return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    # ---- in the order of dependence; the stack ends them in the reverse one

    async def _start(self) -> None:
        plan = self.plan
        lock = self._stack.enter_context(datadir.DataDirLock(self.data_dir))
        port = free_port(plan.host, plan.port)
        self.url = f"http://{reachable(plan.host)}:{port}"
        self.key = plan.around.admin_key or datadir.ensure_admin_key(self.data_dir)
        datadir.make_folders(self.data_dir)
        embedded_redis = None if plan.around.redis_url else await self._start_redis()
        memory = {} if plan.around.qdrant_url else await self._start_memory()
        model_port = await self._start_simulator() if plan.simulated else None
        if embedded_redis is not None:
            await self._within(LOAD_SECONDS, embedded.wait_until_loaded(embedded_redis), "Redis does not answer")
        redis_url = embedded_redis.url if embedded_redis else str(plan.around.redis_url)
        async with probe.redis(redis_url) as link:
            await probe.ping(link, redis_url)
        lock.describe(pid=os.getpid(), url=self.url, redis_url=redis_url, qdrant_url=memory.get(QDRANT_URL))
        self._environment = {
            **child_environment(),
            "NIGHTSHIFT_REDIS_URL": redis_url,
            "NIGHTSHIFT_DATA_DIR": str(self.data_dir),
        }
        model = simulated(model_port) if model_port else {}
        command = _command("api", "--host", plan.host, "--port", str(port))
        secrets = {**child_environment(*MEMORY_SECRETS), "NIGHTSHIFT_ADMIN_KEY": self.key}
        await self._keep(Program("api", command, {**secrets, **self._environment, **memory}))
        workers = [await self._keep(self._worker(number, {**memory, **model})) for number in range(plan.workers)]
        await self._keep(Program("scheduler", _command("scheduler"), self._environment))
        ready = self._until_ready(redis_url, workers, model_port)
        await self._within(START_SECONDS, ready, "the platform is not ready")
        datadir.write_api_url(self.data_dir, self.url)

    async def _start_redis(self) -> embedded.EmbeddedRedis:
        redis = embedded.prepare(self.data_dir, search_path())
        self._stack.callback(redis.remove_scratch)
        await embedded.retire_orphan(redis)
        await self._keep(redis.program)
        return redis

    async def _start_simulator(self) -> int:
        port = free_port(LOOPBACK, 0)
        command = _command("simulator", "--host", LOOPBACK, "--port", str(port))
        await self._keep(Program("simulator", command, child_environment()))
        return port

    async def _start_memory(self) -> dict[str, str]:
        """Its settings for those that use it. Nothing waits until it serves: jobs go on without it."""
        folder, port = self.data_dir / datadir.MEMORY, free_port(LOOPBACK, 0)
        key = ensure_key(folder)
        command = (*PYTHON, "memory.embedded", "--data-dir", str(folder), "--host", LOOPBACK, "--port", str(port))
        await self._keep(Program("memory", command, child_environment()))
        return {QDRANT_URL: f"http://{LOOPBACK}:{port}", "NIGHTSHIFT_QDRANT_API_KEY": key}

    def _worker(self, number: int, embedded: dict[str, str]) -> Program:
        around = self.plan.around
        secrets = (*ALERT_SECRETS, *MEMORY_SECRETS, *(() if self.plan.simulated else MODEL_SECRETS))
        environment = {**child_environment(*secrets), **self._environment, **embedded, **self.plan.tool_settings}
        environment["NIGHTSHIFT_AGENTS"] = self.plan.agents
        if around.metrics_port is not None:  # each process needs one of its own
            environment["NIGHTSHIFT_METRICS_PORT"] = str(around.metrics_port + number)
        return Program(f"worker-{number + 1}", _command("worker"), environment, grace=around.drain_seconds + 10)

    async def _keep(self, program: Program) -> Child:
        log = self.data_dir / datadir.LOGS / f"{program.name}.log"
        child = Child(program, log, echo=self.plan.verbose, hurry=self.hurry)
        self._children.append(child)
        self._stack.push_async_callback(self._stop, child)
        return child

    async def _stop(self, child: Child) -> None:
        """Ends a child, and with it all those of its kind that were started beside it."""
        kind = child.program.name.partition("-")[0]
        await asyncio.gather(*(c.stop() for c in self._children if c.program.name.partition("-")[0] == kind))

    async def _until_ready(self, redis_url: str, workers: list[Child], model_port: int | None) -> None:
        if model_port is not None:
            await until_open(model_port)
        async with Client(self.connection) as client:
            await client.until_ready()
        await _until_live(redis_url, workers)

    async def _within(self, seconds: float, waiting: Awaitable[None], problem: str) -> None:
        """Waits for `waiting`; a child that fails meanwhile ends it."""
        waiter = asyncio.ensure_future(waiting)
        failure = asyncio.ensure_future(self.failed())
        try:
            done, _ = await asyncio.wait({waiter, failure}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if not done:
                logs = self.data_dir / datadir.LOGS
                raise UnreachableError(f"{problem} after {seconds:.0f} seconds; see the logs in {logs}")
        finally:
            for task in (waiter, failure):
                task.cancel()
            await asyncio.gather(waiter, failure, return_exceptions=True)


async def run(plan: Plan, body: Callable[[Platform], Awaitable[int]], *, interrupted: int) -> int:
    """Starts the platform, runs `body` on it, and stops it in good order.

    Returns what the body returns, or `interrupted` after SIGINT, SIGTERM or SIGHUP; a second signal ends the children
    without their grace. Raises CliError.
    """
    platform = Platform(plan)
    told = asyncio.Event()

    def tell() -> None:
        if told.is_set():
            platform.hurry.set()
        told.set()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # that is how nohup asks
            loop.add_signal_handler(number, tell)
    work = asyncio.create_task(_run(platform, body))
    stop = asyncio.create_task(told.wait())
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        print("stopping; a second Ctrl-C does not wait for running jobs", file=sys.stderr)
        if not platform.closing:
            work.cancel()
        await asyncio.wait({work})
    stop.cancel()
    if work.cancelled():
        return interrupted
    return work.result()


async def _run(platform: Platform, body: Callable[[Platform], Awaitable[int]]) -> int:
    async with platform:
        work = asyncio.ensure_future(body(platform))
        failure = asyncio.ensure_future(platform.failed())
        try:
            done, _ = await asyncio.wait({work, failure}, return_when=asyncio.FIRST_COMPLETED)
            if failure in done:
                failure.result()
            return work.result()
        finally:
            for task in (work, failure):
                task.cancel()
            await asyncio.gather(work, failure, return_exceptions=True)


def simulated(port: int) -> dict[str, str]:
    """The settings of a worker that asks the simulated model."""
    return {"NIGHTSHIFT_MODEL_BASE_URL": f"http://{LOOPBACK}:{port}", "NIGHTSHIFT_SIMULATE": "1"}


def _command(*arguments: str) -> tuple[str, ...]:
    return (*PYTHON, "cli", *arguments)


async def _until_live(redis_url: str, workers: list[Child]) -> None:
    async with probe.redis(redis_url) as link:
        while not await _all_live(link, workers):  # noqa: ASYNC110 (another process's state has no event)
            await asyncio.sleep(0.05)


async def _all_live(link: RedisLink, workers: list[Child]) -> bool:
    live = {report.pid for report in await probe.workers(link)}
    return all(worker.pid in live for worker in workers)
