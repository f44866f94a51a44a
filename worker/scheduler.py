"""The scheduler process: handles the slots of schedules as they fall due. Any number of them may run.

It goes by the clock of Redis alone. What two of them see at once, one of them handles, for that is a script's; what one
of them leaves behind when it dies, another submits.
"""

from __future__ import annotations

import asyncio
import signal

import structlog

from agent_core.failpoints import arm, failpoint
from agent_core.redaction import Redactor
from jobs.agents import AgentCatalogue
from jobs.errors import UnavailableError
from jobs.firing import Launcher
from jobs.link import RedisLink, connect
from jobs.logs import configure_logging
from jobs.schedules import Schedules
from jobs.settings import CommonSettings
from jobs.slots import look
from jobs.store import JobStore

log = structlog.get_logger("scheduler")
MOST_AT_ONCE = 100
LONGEST_WAIT = 0.5
"""Seconds after which it looks again in any case: schedules come and change."""


class Scheduler:
    """Handles slots that are due and submits their jobs."""

    def __init__(self, link: RedisLink) -> None:
        self._schedules = Schedules(link)
        self._launcher = Launcher(self._schedules, JobStore(link), AgentCatalogue(link))

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            wait = LONGEST_WAIT
            try:
                wait = min(wait, await self.sweep())
            except UnavailableError as exc:
                log.warning("schedules: %s", exc)
            except Exception:  # whatever a record may hold; the next look may find another
                log.exception("a look at the schedules failed")
            await asyncio.sleep(wait)

    async def sweep(self) -> float:
        """Does what is due; in how many seconds something will be, at the latest."""
        work = await self._schedules.due(MOST_AT_ONCE)
        done = [self._handle(schedule_id, work.now) for schedule_id in work.schedules]
        done += [self._submit(schedule_id, [slot]) for schedule_id, slot in work.left]
        for failure in await asyncio.gather(*done, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise failure
        return LONGEST_WAIT if work.wait is None else work.wait / 1000

    async def _handle(self, schedule_id: str, now: int) -> None:
        schedule = await self._schedules.find(schedule_id)
        if schedule is not None:
            fired = await self._schedules.handle(schedule, look(schedule.timing, schedule.cursor_ms, now))
            failpoint("after_slots")
            await self._submit(schedule_id, fired)

    async def _submit(self, schedule_id: str, slots: list[str]) -> None:
        for slot in slots:  # in order: a run may be cancelled by the next one
            job = await self._launcher.submit(schedule_id, slot)
            log.info("slot fired" if job else "slot refused", schedule=schedule_id, slot=slot, job=job and job.id)


def serve(settings: CommonSettings) -> int:
    """Runs a scheduler until SIGTERM; returns the process's exit status."""
    configure_logging(settings.log_format, settings.log_level, Redactor(settings.secrets))
    arm(settings.failpoints)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: CommonSettings) -> None:
    link = RedisLink(connect(settings.redis_url))
    task = asyncio.create_task(Scheduler(link).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    log.info("scheduler started")
    try:
        await asyncio.wait({task})
    finally:
        await link.aclose()
