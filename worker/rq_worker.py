"""An RQ worker that runs many jobs as coroutines of one event loop.

It keeps RQ's data model (worker registration, queues, executions, registries, the stop and shutdown commands), so that
`rq info` and `rq.command` work; how tickets are claimed, leased and ended is `jobs.queue`'s.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import redis
import structlog
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker
from rq.worker.base import WorkerStatus

from agent_core.failpoints import failpoint
from jobs.errors import UnavailableError
from jobs.queue import Claim, Tickets
from worker.executor import Attempted, Executor
from worker.threads import ToolThreads

log = structlog.get_logger("worker")
CLAIMED_AT_ONCE = 100
RECONNECT_SECONDS = 1.0
HAND_BACK_SECONDS = 10.0
IDLE_SECONDS = 1
"""An idle worker looks for tickets this often even when no wake-up reaches it."""


class ConcurrentWorker(BaseWorker):
    """Claims, runs and drains. `serve` is its life; everything that awaits Redis is handed in."""

    def __init__(
        self,
        queues: Sequence[str],
        *,
        connection: redis.Redis,
        executor: Executor,
        tickets: Tickets,
        pools: Sequence[str],
        concurrency: int,
        lease: int,
        grace: float,
        versions: Callable[[], Sequence[str]],
        side_queues: Callable[[], Sequence[str]],
    ) -> None:
        super().__init__(list(queues), connection=connection, serializer=JSONSerializer, worker_ttl=lease * 4)
        self.executor = executor
        self.tickets = tickets
        self.pools = list(pools)
        self.concurrency = concurrency
        self.lease = lease
        self.grace = grace
        self.versions = versions
        self.side_queues = side_queues
        self.running: dict[str, Attempted] = {}
        self.draining = asyncio.Event()
        self._hurry = asyncio.Event()
        self._freed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connection_timeout(self) -> int:
        """Seconds; RQ's own would hang for minutes on a half-open socket."""
        return 5

    async def serve(self) -> None:
        """Registers, runs jobs until SIGTERM, SIGINT or RQ's shutdown command, drains, and says good-bye."""
        self._loop = asyncio.get_running_loop()
        threads = ToolThreads()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.drain)
        await asyncio.to_thread(self.bootstrap, "WARNING")
        try:
            await self._claim_until_drained()
            await self._drain()
        finally:
            threads.leave_behind()
            with suppress(redis.RedisError):
                await asyncio.to_thread(self.teardown)

    def drain(self) -> None:
        """Stops claiming; a second call ends the grace of what runs."""
        if self.draining.is_set():
            self._hurry.set()
        self.draining.set()

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """RQ's own way in is closed: this worker needs what `worker.runtime` puts together."""
        raise NotImplementedError("start it with `nightshift worker`")

    # ---- claim

    async def _claim_until_drained(self) -> None:
        backoff = 0.1
        while not self.draining.is_set():
            free = min(self.concurrency - len(self.running), CLAIMED_AT_ONCE)
            if free <= 0:
                await self._until(self._freed.wait())
                self._freed.clear()
                continue
            try:
                claims = await self._claim(free)
                if not claims:
                    await self._until(self.tickets.wait(self.pools, IDLE_SECONDS))
                backoff = 0.1
            except (UnavailableError, redis.ResponseError) as exc:
                log.warning("no tickets: %s", exc)
                await self._until(asyncio.sleep(backoff * random.uniform(0.5, 1.0)))  # noqa: S311
                backoff = min(backoff * 2, 5.0)

    async def _claim(self, free: int) -> list[Claim]:
        queues = in_order(self.queue_names(), self.side_queues())
        claims = await self.tickets.claim(queues, self.versions(), most=free, lease=self.lease, worker=self.name)
        if claims:
            failpoint("after_claim")
        for claim in claims:
            self._start(claim)
        return claims

    def _start(self, claim: Claim) -> None:
        attempted = Attempted(claim)
        self.running[claim.member] = attempted
        task = asyncio.get_running_loop().create_task(self.executor.execute(attempted), name=claim.job_id)
        attempted.task = task
        task.add_done_callback(lambda _: self._done(claim.member))

    def _done(self, member: str) -> None:
        self.running.pop(member, None)
        self._freed.set()

    async def _until(self, waiting: Any) -> None:
        """Waits for something or for the drain, whichever comes first."""
        tasks = [asyncio.ensure_future(waiting), asyncio.ensure_future(self.draining.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0] in done:
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()

    # ---- stop

    async def _drain(self) -> None:
        """Gives what runs its grace, then hands it back at its last recorded step."""
        log.info("draining", running=len(self.running), grace=self.grace)
        tasks = [a.task for a in self.running.values() if a.task is not None]
        if tasks:
            all_done = asyncio.ensure_future(asyncio.wait(tasks))
            hurry = asyncio.ensure_future(self._hurry.wait())
            await asyncio.wait([all_done, hurry], timeout=self.grace, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            for attempted in list(self.running.values()):
                attempted.interrupt("drain")
            _, late = await asyncio.wait([all_done], timeout=HAND_BACK_SECONDS)
            if late:
                raise UnavailableError(
                    f"{len(self.running)} jobs were not handed back; they move on when their leases end"
                )

    def stop_job(self, job_id: str) -> None:
        """Cancels a job that runs here; from any thread."""
        for attempted in list(self.running.values()):
            if attempted.claim.job_id == job_id:
                self.call_soon(attempted.interrupt, "cancel")

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Calls a function in the worker's event loop; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)

    # ---- what RQ calls, in the thread of its subscription

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Carries out RQ's stop-job and shutdown commands."""
        try:
            payload = json.loads(message["data"])
            command = payload["command"]
        except (ValueError, KeyError, TypeError):
            log.warning("a command that cannot be read was ignored")
            return
        if command == "stop-job":
            self.stop_job(str(payload.get("job_id")))
        elif command == "shutdown":
            self.call_soon(self.drain)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Outlives every fault of the connection; stock RQ ends the thread on a time-out."""
        if not isinstance(exc, redis.RedisError | OSError):
            raise exc
        time.sleep(RECONNECT_SECONDS)

    def beat_worker(self) -> None:
        """Renews RQ's record of this worker, once there is one; blocks."""
        if self.birth_date is None:  # RQ refuses to register a worker whose record is there already
            return
        busy = bool(self.running)
        ended, self.executor.ended = self.executor.ended, Counter()
        with self.connection.pipeline() as pipeline:
            for how, count in ended.items():
                pipeline.hincrby(self.key, f"{how}_job_count", count)
            self.set_state(WorkerStatus.BUSY if busy else WorkerStatus.IDLE, pipeline=pipeline)
            self.heartbeat(self.lease * 4, pipeline=pipeline)
            pipeline.execute()


def in_order(queues: Sequence[str], side_queues: Sequence[str]) -> list[str]:
    """The queues to claim from: before each its side queues, whose jobs have waited longer. Those of other pools are
    left out.
    """
    return [name for queue in queues for name in (*_beside(queue, side_queues), queue)]


def _beside(queue: str, side_queues: Sequence[str]) -> list[str]:
    return [name for name in side_queues if name.partition("@")[0] == queue]
