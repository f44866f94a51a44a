"""The one road to Redis: what is asked for while a round trip is under way goes out as one pipeline after it.

redis-py's asyncio client packs commands in Python, its blocking client in C. So the pipelines run on the blocking
client, in one thread; under load a single round trip carries hundreds of commands.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.retry import Retry

from jobs.errors import UnavailableError
from jobs.scripts import Script

Arg = str | int | float | bytes
AWAY = (redis.ConnectionError, redis.TimeoutError, BusyLoadingError)
MOST_IN_A_PIPELINE = 512
Waiting = tuple[asyncio.Future[Any], tuple[Any, ...], bool]
"""The future answer, the words of the command, and whether it is held until it can be delivered."""
log = logging.getLogger(__name__)


def connect(url: str, timeout: float = 5.0) -> redis.Redis:
    """A blocking client that fails within `timeout` seconds and leaves retries to its caller. Does not connect yet."""
    return redis.Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), max_connections=1000
    )


class RedisLink:
    """Commands and scripts from coroutines of one event loop.

    `patient=True` holds what cannot be delivered in memory and tries again until Redis is back: for a worker, whose
    writes are numbered and so may be repeated. Otherwise a fault raises UnavailableError at once. An error that Redis
    itself answers with is raised as the redis.ResponseError that it is.
    """

    def __init__(self, client: redis.Redis, *, patient: bool = False) -> None:
        self.client = client
        self.patient = patient
        self._waiting: list[Waiting] = []
        self._running = False
        self._loaded: set[Script] = set()
        self._closed = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="redis")

    def command(self, *args: Arg) -> asyncio.Future[Any]:
        """The answer to one command, as bytes. Commands and scripts reach Redis in the order of the calls."""
        return self._send(args, self.patient)

    def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Arg], *, patient: bool | None = None
    ) -> asyncio.Future[Any]:
        """The answer of one script. `patient` overrides the link's own: False for what may not be repeated."""
        words = (script, len(keys), *keys, *args)
        return self._send(words, self.patient if patient is None else patient)

    async def aclose(self) -> None:
        """Stops; what is still held is refused with UnavailableError."""
        self._closed.set()
        await asyncio.to_thread(self._thread.shutdown, wait=True)
        await asyncio.to_thread(self.client.close)

    def _send(self, words: tuple[Any, ...], patient: bool) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((future, words, patient))
        if not self._running:
            self._running = True
            loop.call_soon(self._start, loop)
        return future

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed.is_set():
            waiting, self._waiting = self._waiting, []
            closed = UnavailableError("the connection to Redis was closed")
            self._finish(loop, waiting, [closed] * len(waiting))
            return
        batch, self._waiting = self._waiting[:MOST_IN_A_PIPELINE], self._waiting[MOST_IN_A_PIPELINE:]
        self._thread.submit(self._round_trip, loop, batch)

    def _finish(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting], answers: list[Any]) -> None:
        away = False
        for (future, _, _), answer in zip(batch, answers, strict=True):
            away = away or (isinstance(answer, UnavailableError) and answer.code == UnavailableError.code)
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        if away:
            self._refuse_waiting()
        if self._waiting:
            self._start(loop)
        else:
            self._running = False

    def _refuse_waiting(self) -> None:
        """Refuses what waits behind a batch that found Redis away: it would only wait for the same timeout again."""
        for future, _, patient in self._waiting:
            if not patient and not future.done():
                future.set_exception(UnavailableError("Redis does not answer; try again shortly"))
        self._waiting = [waiting for waiting in self._waiting if not waiting[0].done()]

    # ---- in the thread

    def _round_trip(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting]) -> None:
        answers = self._deliver([(words, patient) for _, words, patient in batch])
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._finish, loop, batch, answers)

    def _deliver(self, batch: list[tuple[tuple[Any, ...], bool]]) -> list[Any]:
        answers: list[Any] = [None] * len(batch)
        todo = list(range(len(batch)))
        delay = 0.05
        while True:
            for index, answer in zip(todo, self._pipeline([batch[i][0] for i in todo]), strict=True):
                answers[index] = _translate(answer)
            todo = [i for i in todo if isinstance(answers[i], UnavailableError) and batch[i][1]]
            if not todo:
                return answers
            log.warning("Redis does not answer; %d writes wait in memory", len(todo))
            if self._closed.wait(delay * random.uniform(0.5, 1.0)):  # noqa: S311
                return answers
            delay = min(delay * 2, 2.0)

    def _pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        try:
            answers = self._execute(commands)
            missing = {c[0] for c, a in zip(commands, answers, strict=True) if isinstance(a, NoScriptError)}
            if missing:
                for script in missing:
                    self.client.script_load(script.text)
                again = [i for i, a in enumerate(answers) if isinstance(a, NoScriptError)]
                for i, answer in zip(again, self._execute([commands[i] for i in again]), strict=True):
                    answers[i] = answer
            return answers
        except RedisError as exc:
            self._loaded.clear()
            return [exc] * len(commands)
        except (TypeError, ValueError) as exc:  # one of them cannot be written down, and so none was sent
            return [exc] if len(commands) == 1 else [self._pipeline([command])[0] for command in commands]

    def _execute(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """One round trip. Scripts that this connection has not used yet go ahead: to send them only when Redis misses
        them would put what follows a script before it.
        """
        fresh = {words[0] for words in commands if isinstance(words[0], Script)} - self._loaded
        with self.client.pipeline(transaction=False) as pipeline:
            for script in fresh:
                pipeline.execute_command("SCRIPT LOAD", script.text)  # type: ignore[no-untyped-call]
            for words in commands:
                if isinstance(words[0], Script):
                    pipeline.execute_command("EVALSHA", words[0].sha, *words[1:])  # type: ignore[no-untyped-call]
                else:
                    pipeline.execute_command(*words)  # type: ignore[no-untyped-call]
            answers = pipeline.execute(raise_on_error=False)
        self._loaded |= fresh
        return answers[len(fresh) :]


def _translate(answer: Any) -> Any:
    if not isinstance(answer, RedisError):
        return answer
    text = str(answer)  # out of a script, Redis 6 answers with a plain error that quotes the real one
    if isinstance(answer, AuthenticationError):
        return UnavailableError("Redis refuses the password of NIGHTSHIFT_REDIS_URL", code="storage_auth")
    if isinstance(answer, AWAY):
        return UnavailableError("Redis does not answer; try again shortly")
    if isinstance(answer, OutOfMemoryError) or "OOM command not allowed" in text:
        return UnavailableError("Redis is full: raise its maxmemory or let jobs be pruned", code="storage_full")
    if isinstance(answer, ReadOnlyError) or "MISCONF" in text or "NOREPLICAS" in text:
        return UnavailableError("Redis refuses writes: see its log", code="storage_read_only")
    return answer


def milliseconds() -> int:
    """The wall clock in ms, for ids and displays; leases go by the clock of Redis."""
    return time.time_ns() // 1_000_000
