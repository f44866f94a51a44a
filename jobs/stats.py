"""Fleet-wide counters in one Redis hash: endings move inside the script of the transition, the rest is gathered in the
worker's memory and added every second.

A field is its metric's name and its label values, joined by `|`. Histograms keep a field for each bucket.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from collections import defaultdict

from jobs import keys
from jobs.link import RedisLink

BUCKETS: dict[str, tuple[float, ...]] = {
    "job_duration_seconds": (0.5, 1, 5, 15, 60, 300, 900, 3600, 14400),
    "queue_wait_seconds": (0.01, 0.05, 0.25, 1, 5, 30, 120, 600),
    "model_call_seconds": (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
    "tool_call_seconds": (0.01, 0.05, 0.25, 1, 5, 30, 150),
}
"""Upper bounds of the histograms' buckets, in seconds; the last bucket is without a bound."""
SEPARATOR = "|"


def field_name(metric: str, *labels: str) -> str:
    """The hash field of a counter."""
    return SEPARATOR.join((metric, *(label.replace(SEPARATOR, "_") for label in labels)))


def ended_field(agent: str, status: str) -> str:
    """The counter of jobs of an agent that ended in a status."""
    return field_name("jobs_total", agent, status)


class Stats:
    """Counters of one worker since the last flush. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[str, float] = defaultdict(float)

    def add(self, metric: str, *labels: str, amount: float = 1) -> None:
        """Adds to a counter."""
        with self._lock:
            self._counts[field_name(metric, *labels)] += amount

    def observe(self, metric: str, seconds: float) -> None:
        """Adds one observation to a histogram."""
        bucket = bisect_left(BUCKETS[metric], seconds)
        with self._lock:
            self._counts[field_name(metric, "bucket", str(bucket))] += 1
            self._counts[field_name(metric, "sum")] += seconds

    def take(self) -> dict[str, float]:
        """The counts since the last call."""
        with self._lock:
            counts, self._counts = self._counts, defaultdict(float)
        return dict(counts)

    async def flush(self, link: RedisLink) -> None:
        """Adds the counts to the fleet's. What could not be delivered is lost: these are for graphs, not for bills."""
        await asyncio.gather(
            *(link.command("HINCRBYFLOAT", keys.STATS, name, amount) for name, amount in self.take().items())
        )


async def read(link: RedisLink) -> dict[str, float]:
    """Every counter by its field."""
    raw = await link.command("HGETALL", keys.STATS)
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    return {name.decode(): float(value) for name, value in pairs}
