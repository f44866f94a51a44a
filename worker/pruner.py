"""Prunes what has been kept long enough: see `jobs.retention`. Every worker runs one."""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import structlog

from jobs import keys
from jobs.errors import UnavailableError
from jobs.files import FileStore
from jobs.link import RedisLink
from jobs.retention import Pruned, Retention

log = structlog.get_logger("worker")
SWEEP_SECONDS = 60.0
DRAFT_SECONDS = 24 * 3600.0


class Pruner:
    """Sweeps about once a minute. `workspaces` is this machine's directory of working directories: one whose job is no
    more goes too.
    """

    def __init__(self, link: RedisLink, files: FileStore, retention: Retention, workspaces: Path) -> None:
        self._link = link
        self._files = files
        self._retention = retention
        self._workspaces = workspaces

    async def run(self) -> None:
        """Sweeps for ever. A sweep that fails is logged, and the next one goes on where it stopped."""
        while True:
            # not all workers of a fleet at the same moment
            await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
            try:
                await self.sweep()
            except UnavailableError as exc:
                log.warning("pruning: %s", exc)
            except Exception:  # whatever the place of contents may raise; no lease may be lost over it
                log.exception("pruning failed")

    async def sweep(self) -> Pruned:
        """One sweep; returns what it removed."""
        pruned = await self._retention.sweep()
        if pruned != Pruned():
            log.info("pruned", **asdict(pruned))
        await self._files.discard_drafts(DRAFT_SECONDS)
        await self._sweep_workspaces()
        return pruned

    async def _sweep_workspaces(self) -> None:
        for path in await asyncio.to_thread(_directories, self._workspaces):
            if not await self._link.command("EXISTS", keys.job(path.name)):
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def _directories(parent: Path) -> list[Path]:
    return [path for path in parent.glob("job_*") if path.is_dir()]
