"""Forgets what was remembered for a time only, and what was of no use for long. Every worker with memory does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog

from memory.errors import MemoryLayerError
from memory.setup import LazyMemory

log = structlog.get_logger("worker")
SWEEP_SECONDS = 3600.0


@asynccontextmanager
async def pruning(memory: LazyMemory, unused_days: int) -> AsyncIterator[None]:
    """Within it, memory is looked through about once an hour. It shares the event loop of the memory's connections."""
    task = asyncio.create_task(_run(memory, unused_days), name="prune memory")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _run(memory: LazyMemory, unused_days: int) -> None:
    while True:
        # not all workers of a fleet at the same moment
        await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
        try:
            await sweep(memory, unused_days)
        except MemoryLayerError as exc:
            log.warning("pruning memory: %s", exc)
        except Exception:  # the next sweep goes on where this one stopped
            log.exception("pruning memory failed")


async def sweep(memory: LazyMemory, unused_days: int) -> int:
    """Forgets, over all tenants, what has expired, and what nobody said or used for `unused_days` (0: ever); how many.

    Raises MemoryLayerError.
    """
    now = datetime.now(UTC)
    pruned = await (await memory.get()).store.prune(now, now - timedelta(days=unused_days) if unused_days else None)
    if pruned:
        log.info("memory pruned", memories=pruned)
    return pruned
