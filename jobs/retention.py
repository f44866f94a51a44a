"""What goes when its time is over: ended jobs with all that is theirs, uploads that no job names, contents that no file
names, deliveries of webhooks that are settled. Any number of processes may prune at once; for each thing exactly one
wins, for each decision is a script's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import redis
import structlog

from jobs import keys, queue_keys
from jobs.deliveries import Deliveries
from jobs.files import FileStore
from jobs.lanes import lane_of, queue_name
from jobs.link import RedisLink
from jobs.scripts import script

log = structlog.get_logger(__name__)

DAY_MS = 24 * 3600 * 1000
BATCH = 100
UNNAMED_MS = 3600 * 1000
"""How long a content stays that no file names: far longer than from the write of a content to its record."""
LOCK_MS = 60 * 1000
"""How long the deletion of one content may take; who wants to write the same content waits so long."""


@dataclass(slots=True)
class Pruned:
    """How many of each one sweep removed."""

    jobs: int = 0
    files: int = 0
    contents: int = 0
    deliveries: int = 0


class Retention:
    """Prunes what is older than `keep_ms`; contents go `unnamed_ms` after the last file that named them."""

    def __init__(self, link: RedisLink, files: FileStore, keep_ms: int, unnamed_ms: int = UNNAMED_MS) -> None:
        self._link = link
        self._files = files
        self._keep_ms = keep_ms
        self._unnamed_ms = unnamed_ms

    async def sweep(self) -> Pruned:
        """Removes all that is old enough. Raises UnavailableError; OSError when the place of contents fails."""
        return Pruned(
            jobs=await self._each(keys.ENDED, self._keep_ms, self.prune_job),
            files=await self._each(keys.FILES, self._keep_ms, self._prune_file),
            contents=await self._each(keys.UNNAMED, self._unnamed_ms, self._prune_content),
            deliveries=await self._each(keys.SETTLED, self._keep_ms, self._prune_delivery),
        )

    async def _each(self, index: str, keep_ms: int, prune: Callable[[str], Awaitable[bool]]) -> int:
        """Prunes the old members of a sorted set, batch by batch; returns how many went by this process's doing."""
        seconds, micros = await self._link.command("TIME")
        limit, removed, damaged = int(seconds) * 1000 + int(micros) // 1000 - keep_ms, 0, 0
        while True:
            found = await self._link.command("ZRANGEBYSCORE", index, "-inf", limit, "LIMIT", damaged, BATCH)
            verdicts = await asyncio.gather(*(self._quietly(prune, member.decode()) for member in found))
            removed += verdicts.count(True)
            damaged += verdicts.count(None)  # it stays, and must not hold up what is behind it
            if len(found) < BATCH or not (True in verdicts or None in verdicts):  # others are at it, then
                return removed

    async def _quietly(self, prune: Callable[[str], Awaitable[bool]], member: str) -> bool | None:
        """Whether it was pruned, None when it cannot be."""
        try:
            return await prune(member)
        except (ValueError, TypeError, AttributeError, redis.ResponseError) as exc:  # a record that is none
            log.error("cannot be pruned", what=member, error=str(exc))
            return None

    async def prune_job(self, job_id: str) -> bool:
        """Removes one job, if it has ended and is old enough; whether it did."""
        record = await self._link.command("HMGET", keys.job(job_id), "tenant", "status", "queue", "spec")
        tenant, status, queue, text = ((word or b"").decode() for word in record)
        spec = json.loads(text or "{}")
        queue = queue or lane_of(queue_name(spec.get("pool", ""), spec.get("priority", "")), tenant)
        artifacts = _texts(await self._link.command("SMEMBERS", keys.job_files(job_id)))
        files = [*artifacts, *spec.get("files", ())]
        pruned = await self._link.script(
            script("prune_job"),
            [
                keys.job(job_id),
                keys.journal(job_id),
                keys.ENDED,
                keys.all_jobs(tenant),
                keys.ended_jobs(tenant, status),
                keys.job_blobs(job_id),
                keys.job_files(job_id),
                queue_keys.job(job_id),
                queue_keys.executions(job_id),
                queue_keys.registry(status, queue),
                keys.FILES,
                keys.UNNAMED,
                keys.job_approvals(job_id),
                keys.approvals(tenant),
                keys.children(job_id),
                keys.ORPHANS,
                *map(keys.file, files),
            ],
            [job_id, self._keep_ms, status, len(artifacts), keys.APPROVAL_PREFIX, *files],
            patient=False,
        )
        return bool(pruned)

    async def _prune_file(self, file_id: str) -> bool:
        file_keys = [keys.file(file_id), keys.FILES, keys.UNNAMED]
        return bool(await self._link.script(script("prune_file"), file_keys, [file_id, self._keep_ms], patient=False))

    async def _prune_delivery(self, delivery_id: str) -> bool:
        return await Deliveries(self._link).prune(delivery_id, self._keep_ms)

    async def _prune_content(self, key: str) -> bool:
        """Deletes a content. Who dies in between leaves it to the next, for it is still in the sorted set."""
        sha256 = key.removeprefix(keys.CONTENT_PREFIX)
        lock = keys.content_lock(sha256)
        if not await self._link.script(
            script("lock_content"), [keys.UNNAMED, key, lock], [self._unnamed_ms, LOCK_MS], patient=False
        ):
            return False
        await self._files.discard(sha256)
        await asyncio.gather(self._link.command("ZREM", keys.UNNAMED, key), self._link.command("DEL", lock))
        return True


def _texts(items: Iterable[bytes]) -> list[str]:
    return sorted(item.decode() for item in items)
