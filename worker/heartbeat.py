"""Renews the leases of what this worker runs, three times in each lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from agent_core.failpoints import failpoint
from jobs.errors import UnavailableError
from jobs.queue import Tickets

log = structlog.get_logger("worker")
AT_ONCE = 200
Member = tuple[str, str, str]


async def heartbeat(
    tickets: Tickets, lease: int, members: Callable[[], Sequence[Member]], on_verdict: Callable[[Member, int], None]
) -> None:
    """Beats for ever.

    `members` gives (job id, token, queue) of what runs; `on_verdict` hears -1 lost, 1 cancel, 2 pause.
    """
    while True:
        try:
            running = list(members())
            for i in range(0, len(running), AT_ONCE):
                part = running[i : i + AT_ONCE]
                failpoint("before_beat")
                for member, verdict in zip(part, await tickets.beat(part, lease), strict=True):
                    if verdict:
                        on_verdict(member, verdict)
            await asyncio.sleep(lease / 3)
        except UnavailableError as exc:
            log.warning("heartbeat: %s", exc)
            await asyncio.sleep(min(1.0, lease / 6))
