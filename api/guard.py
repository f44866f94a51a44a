"""Whether a submission would be accepted now: Redis is there, takes writes, evicts nothing and has room."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import structlog
from redis.exceptions import RedisError

from jobs import keys
from jobs.durability import require_no_eviction
from jobs.errors import UnavailableError
from jobs.link import RedisLink

log = structlog.get_logger(__name__)

CHECK_SECONDS = 2.0
PROBE_SECONDS = 60
FULL_AT = 0.8
"""Share of `maxmemory` above which submissions are refused, so that running jobs can still write their results."""


class Guard:
    """Looks at Redis every few seconds and keeps what is wrong with it, for the submit path to ask without waiting."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._fault: UnavailableError | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run(), name="guard")

    async def aclose(self) -> None:
        """Stops."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def require(self) -> None:
        """Raises UnavailableError when Redis must not be given more jobs."""
        if self._fault is not None:
            raise self._fault

    async def check(self) -> UnavailableError | None:
        """What is wrong at this moment, or None."""
        try:
            info, _ = await asyncio.gather(
                self._link.command("INFO"), self._link.command("SET", keys.PROBE, "", "EX", PROBE_SECONDS)
            )
            self._fault = _fault(_info(info))
        except UnavailableError as exc:
            # not kept: a submission finds out by itself, and is accepted as soon as Redis is back
            self._fault = None
            return exc
        except RedisError as exc:
            self._fault = UnavailableError(f"Redis refuses what a submission needs: {exc}", code="storage_refuses")
        return self._fault

    async def _run(self) -> None:
        while True:
            before, now = self._fault, await self.check()
            if now is not None and (before is None or before.code != now.code):
                log.warning("submissions are refused", reason=str(now), code=now.code)
            await asyncio.sleep(CHECK_SECONDS)


def _info(raw: Any) -> dict[str, str]:
    if isinstance(raw, dict):
        return {str(name): str(value) for name, value in raw.items()}
    lines = raw.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _fault(info: dict[str, str]) -> UnavailableError | None:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if info.get("loading") == "1":
        return UnavailableError("Redis is loading its data; try again shortly", code="storage_loading")
    try:
        require_no_eviction(info)
    except UnavailableError as exc:
        return exc
    if most and used > FULL_AT * most:
        return UnavailableError(
            f"Redis holds {used >> 20} of {most >> 20} MiB: raise its maxmemory or let jobs be pruned",
            code="storage_full",
        )
    return None
