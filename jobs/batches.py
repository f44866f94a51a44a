"""The batches that have model calls of jobs, and the jobs that wait for them.

A job that waits for a batch is queued without a ticket and held by no worker. Whoever learns that the batch has ended
lets it have one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from jobs import keys
from jobs.link import Arg, RedisLink
from jobs.scripts import script
from jobs.status import ENDED

LONGEST_MS = 25 * 3600 * 1000
"""A batch ends within 24 hours. A job that has waited for longer is run, whatever is known of its batch."""
ENDED_JSON = json.dumps(dict.fromkeys(sorted(ENDED), True))


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at a batch led to: queued jobs that need a ticket now, and how many jobs still wait."""

    woken: list[str]
    waiting: int


class BatchWaits:
    """Who waits for which batch. Raises UnavailableError when Redis is away.

    `record.lua` notes the first wait, in the step that records the batch; `wait` is for one that is taken up again.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def wait(self, batch_id: str, job_id: str, look_ms: int) -> None:
        """Notes that a job waits for a batch, which is to be looked at within so many ms."""
        wait_keys = [keys.BATCHES, keys.batch(batch_id)]
        await self._link.script(script("batch_wait"), wait_keys, [batch_id, job_id, look_ms])

    async def due(self, most: int, hold_ms: int) -> list[str]:
        """Batches that are to be looked at now, which nobody else is given for so many ms."""
        found = await self._link.script(script("batches_due"), [keys.BATCHES], [most, hold_ms], patient=False)
        return [batch_id.decode() for batch_id in found]

    async def looked(self, batch_id: str, *, ended: bool, look_ms: int) -> Looked:
        """Draws the conclusion of a look: lets jobs go on whose batch has ended, and sets when to look again."""
        looked_keys = [keys.BATCHES, keys.batch(batch_id), keys.DUE]
        args: list[Arg] = [batch_id, int(ended), look_ms, ENDED_JSON, keys.JOB_PREFIX]
        woken, waiting = await self._link.script(script("batch_looked"), looked_keys, args)
        return Looked([job_id.decode() for job_id in woken], int(waiting))
