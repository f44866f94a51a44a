from __future__ import annotations

import asyncio

import pytest

from jobs.audit_log import AuditLog
from jobs.errors import UnavailableError
from jobs.link import RedisLink
from worker.audit import prune_audit_logs


async def test_audit_logs_are_pruned_again_and_again_also_after_an_outage(
    link: RedisLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[int] = []
    third = asyncio.Event()

    class Failing(AuditLog):
        async def prune(self, keep_ms: int) -> int:
            sweeps.append(keep_ms)
            if len(sweeps) < 3:
                raise UnavailableError("Redis is away")
            third.set()
            return 1

    monkeypatch.setattr("worker.audit.SWEEP_SECONDS", 0)
    task = asyncio.create_task(prune_audit_logs(Failing(link), 7))
    await asyncio.wait_for(third.wait(), 10)
    task.cancel()
    assert set(sweeps) == {7}
