"""Looks whether the batches have ended that jobs wait for, and lets those jobs go on. Every worker runs one; each batch
is looked at by one of them at a time. A batch for which no job waits any more is cancelled.
"""

from __future__ import annotations

import asyncio

import structlog

from agent_core.claude import BatchStatus, MessageBatches
from agent_core.errors import ModelError
from jobs.batches import BatchWaits
from jobs.errors import UnavailableError
from jobs.store import JobStore

log = structlog.get_logger("worker")
SWEEP_SECONDS = 1.0
MOST_AT_ONCE = 20
HOLD_SECONDS = 60.0
"""How long nobody else looks at a batch that one worker looks at: also after a look that failed."""
LONGEST_LOOK = 30.0
SHORTEST_WAIT, LONGEST_WAIT = 2.0, 60.0
"""Seconds between two looks at a batch. They grow with its age, of which they are a tenth."""


class BatchWatch:
    """The batches of a target, looked at as they fall due."""

    def __init__(self, waits: BatchWaits, store: JobStore, batches: MessageBatches) -> None:
        self._waits = waits
        self._store = store
        self._batches = batches

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            try:
                await self.sweep()
            except UnavailableError as exc:
                log.warning("batches: %s", exc)
            except Exception:  # no lease may be lost over it
                log.exception("a look at the batches failed")
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Looks at the batches that are due."""
        due = await self._waits.due(MOST_AT_ONCE, int(HOLD_SECONDS * 1000))
        await asyncio.gather(*map(self._look, due))

    async def _look(self, batch_id: str) -> None:
        try:
            async with asyncio.timeout(LONGEST_LOOK):
                status = await self._batches.status(batch_id)
        except (ModelError, TimeoutError) as exc:
            if not isinstance(exc, ModelError) or exc.code != "not_found":
                log.warning("batch %s does not answer: %s", batch_id, str(exc) or "it took too long")
                return
            status = BatchStatus(ended=True, age=0.0)  # its jobs find out what that means
        wait = SHORTEST_WAIT if status.ended else min(LONGEST_WAIT, max(SHORTEST_WAIT, status.age / 10))
        looked = await self._waits.looked(batch_id, ended=status.ended, look_ms=int(wait * 1000))
        for job_id in looked.woken:
            await self._store.release(job_id)
        if not status.ended and not looked.waiting:
            await self._cancel(batch_id)

    async def _cancel(self, batch_id: str) -> None:
        try:
            await self._batches.cancel(batch_id)
            log.info("batch cancelled: no job waits for it", batch=batch_id)
        except ModelError as exc:  # what it does now has been paid for at the worst case
            log.warning("batch %s is not wanted and could not be cancelled: %s", batch_id, exc)
