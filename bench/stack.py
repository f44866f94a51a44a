"""The real parts of the platform, each a process of its own, in a directory that is thrown away."""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import redis

from bench.process import BenchError, Process, wait_for
from cli import embedded
from jobs import keys, queue_keys
from jobs.link import connect

START_SECONDS = 30
HOST = "127.0.0.1"
TENANT = "default"


class Stack:
    """Starts parts and, on leaving it, stops them in the reverse order. Redis runs from the beginning, set up as
    `nightshift up` sets up its own: a unix socket, append-only file on, fsync each second.
    """

    def __init__(self) -> None:
        self.key = f"ns_{secrets.token_urlsafe(32)}"
        self._exit = ExitStack()
        self._running: list[Process] = []

    def __enter__(self) -> Stack:
        self.directory = Path(tempfile.mkdtemp(prefix="nightshift-bench-"))
        self._exit.callback(shutil.rmtree, self.directory, ignore_errors=True)
        server = embedded.prepare(self.directory, None)
        self._exit.callback(server.remove_scratch)
        self.redis = Process("redis", server.program.command, self.directory)
        self._exit.callback(self.redis.stop)
        self.redis_url = server.url
        self.db: redis.Redis = self._exit.enter_context(connect(self.redis_url, timeout=30))
        wait_for("redis", self._redis_answers, START_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def simulator(self, latency: float) -> str:
        """The URL of the simulated model, which takes `latency` seconds for a call."""
        port = _free_port()
        process = self._python("simulator", "simulator", "--host", HOST, "--port", port, "--latency", f"{latency:g}")
        return self._answering(process, port)

    def api(self) -> tuple[Process, str]:
        """The API and its URL."""
        port = _free_port()
        process = self._role("api", "--port", port, "--key", self.key)
        return process, self._answering(process, port)

    def bare_route(self) -> tuple[Process, str]:
        """The FastAPI route that does one XADD, on the API's server settings."""
        port = _free_port()
        process = self._role("bare-route", "--port", port)
        return process, self._answering(process, port)

    def memory(self) -> tuple[str, Path]:
        """The embedded memory's URL, and the file with its key."""
        data = self.directory / "memory"
        shutil.rmtree(data, ignore_errors=True)
        port = _free_port()
        process = self._python("memory", "memory.embedded", "--data-dir", data, "--port", port)
        return self._answering(process, port), data / "api.key"

    def worker(
        self,
        concurrency: int,
        model_url: str = "",
        kind: str = "worker",
        lease: int = 15,
        memory: tuple[str, Path] | None = None,
    ) -> Process:
        """A worker; returns when it is registered. `kind` is `worker`, `noop-worker` or `instant-worker`."""
        self.db.delete(keys.WORKERS)
        words = ["--concurrency", concurrency, "--lease", lease, *(["--model-url", model_url] if model_url else [])]
        if memory is not None:
            words += ["--qdrant-url", memory[0], "--qdrant-key-file", memory[1]]
        process = self._role(kind, *words)
        self._until(process, lambda: bool(self.db.zcard(keys.WORKERS)))
        return process

    def reset(self) -> None:
        """Stops everything but Redis, the last started first, and empties that: nothing of one round costs the next."""
        while self._running:
            self._running.pop().stop()
        self.db.flushall()

    def hold(self) -> None:
        """Keeps workers from taking tickets, by RQ's own switch, so that jobs can be gathered first."""
        self.db.set(queue_keys.SUSPENDED, 1)

    def release(self) -> None:
        """Takes `hold` back."""
        self.db.delete(queue_keys.SUSPENDED)

    def completed(self) -> int:
        """Jobs that have completed."""
        return int(self.db.zcard(keys.ended_jobs(TENANT, "completed")))

    def running(self) -> int:
        """Jobs that some worker holds."""
        return int(self.db.scard(queue_keys.running(TENANT, "tenant")))

    def until_completed(self, jobs: int, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Returns when so many jobs have completed; `meanwhile` is called before each look.

        Raises BenchError when one ended otherwise, or too late.
        """

        def probe() -> bool:
            meanwhile()
            for status in ("failed", "cancelled", "expired"):
                if self.db.zcard(keys.ended_jobs(TENANT, status)):
                    raise BenchError(f"a job has {status}")
            return self.completed() >= jobs

        wait_for(f"{jobs} jobs", probe, seconds, interval=0.02)

    def _role(self, role: str, *arguments: object) -> Process:
        data = self.directory / "data"
        return self._python(role, "bench.roles", role, "--redis-url", self.redis_url, "--data-dir", data, *arguments)

    def _python(self, name: str, module: str, *arguments: object) -> Process:
        process = Process(name, [sys.executable, "-m", module, *map(str, arguments)], self.directory)
        self._exit.callback(process.stop)
        self._running.append(process)
        return process

    def _answering(self, process: Process, port: int) -> str:
        self._until(process, lambda: _open(port))
        return f"http://{HOST}:{port}"

    def _until(self, process: Process, probe: Callable[[], bool]) -> None:
        def alive() -> bool:
            process.check()
            return probe()

        try:
            wait_for(process.name, alive, START_SECONDS)
        except BenchError as exc:
            process.check()
            raise BenchError(f"{exc}\n{process.tail()}") from exc

    def _redis_answers(self) -> bool:
        self.redis.check()
        try:
            return bool(self.db.ping())
        except redis.RedisError:
            return False


def _open(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
