"""Keeps this worker's view of the circuit breakers fresh: what another worker learned is known here within a second."""

from __future__ import annotations

import asyncio

import structlog

from jobs.breaker import FleetBreakers
from jobs.errors import UnavailableError
from jobs.link import RedisLink

log = structlog.get_logger("worker")
LOOK_SECONDS = 1.0


async def watch_breakers(breakers: FleetBreakers, link: RedisLink) -> None:
    """Looks once a second, for ever."""
    while True:
        try:
            await breakers.refresh(link)
        except UnavailableError as exc:
            log.warning("circuit breakers: %s", exc)
        await asyncio.sleep(LOOK_SECONDS)
