"""Stops what runs here as soon as a kill switch covers it; that nothing more is begun is Redis's to see to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from jobs.errors import UnavailableError
from jobs.kill_switch import KillSwitches, switches_of
from worker.executor import Attempted

log = structlog.get_logger("worker")
LOOK_SECONDS = 0.5


async def obey_kill_switches(
    switches: KillSwitches, running: Callable[[], Iterable[Attempted]], stop: Callable[[Attempted], None]
) -> None:
    """Looks twice a second, for ever; `stop` hears of every attempt that a switch covers."""
    told: set[str] = set()
    while True:
        try:
            on = await switches.names()
        except UnavailableError as exc:
            log.warning("kill switch: %s", exc)
        else:
            for attempted in running() if on else ():
                if _is_covered(attempted, on):
                    stop(attempted)
            for name in on - told:
                log.warning("a kill switch is on", switch=name)
            told = on
        await asyncio.sleep(LOOK_SECONDS)


def _is_covered(attempted: Attempted, on: set[str]) -> bool:
    job = attempted.claim.job
    return job is not None and not on.isdisjoint(switches_of(job.tenant, job.spec))
