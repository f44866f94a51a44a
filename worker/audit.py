"""Removes the old entries of audit logs: see `jobs.audit_log`. Every worker does."""

from __future__ import annotations

import asyncio
import random

import structlog

from jobs.audit_log import AuditLog
from jobs.errors import UnavailableError

log = structlog.get_logger("worker")
SWEEP_SECONDS = 600.0


async def prune_audit_logs(logs: AuditLog, keep_ms: int) -> None:
    """Removes what is older than `keep_ms`, every ten minutes or so, for ever."""
    while True:
        # not all workers of a fleet at the same moment
        await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
        try:
            if removed := await logs.prune(keep_ms):
                log.info("audit logs pruned", entries=removed)
        except UnavailableError as exc:
            log.warning("pruning audit logs: %s", exc)
