"""The fleet's metrics, gathered from Redis when they are scraped: every API process shows the same."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from jobs import breaker, stats
from jobs.approvals import Approvals
from jobs.deliveries import Deliveries
from jobs.link import RedisLink
from jobs.queue import Tickets

CONTENT_TYPE = CONTENT_TYPE_LATEST
WEBHOOKS = "webhooks"
"""The queue of deliveries, beside those of jobs."""
PREFIX = "nightshift_"
COUNTERS: dict[str, tuple[tuple[str, ...], str]] = {
    "jobs_total": (("agent", "status"), "Jobs that ended, by the status in which they did."),
    "model_calls_total": (("model", "outcome"), "Attempts at a model call."),
    "tokens_total": (("model", "kind"), "Tokens as providers report them."),
    "cost_usd_total": (("agent", "model"), "What model calls cost, in US dollars."),
    "tool_calls_total": (("tool", "outcome"), "Tool calls that came to a result."),
    "alerts_total": (("condition", "outcome"), "Alerts that were raised, and that were resolved."),
    "alert_deliveries_total": (("channel", "outcome"), "Messages about alerts: delivered, failed, given_up."),
    "webhook_deliveries_total": (("outcome",), "Tries at webhooks: delivered, failed; and what was given_up, dropped."),
    "schedule_slots_total": (("outcome",), "Slots of schedules: fired, late, caught_up, skipped."),
    "rescues_total": ((), "Jobs taken over from a worker that was gone."),
    "fenced_total": ((), "Attempts that found out that another one owns their job."),
}
HISTOGRAMS = {
    "job_duration_seconds": "From a job's first start to its end.",
    "queue_wait_seconds": "From a job's submission to its start.",
    "model_call_seconds": "How long attempts at a model call took.",
    "tool_call_seconds": "How long tool calls took.",
}
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Snapshot(Collector):
    """All metrics at one moment."""

    def __init__(
        self,
        counts: dict[str, float],
        depths: dict[str, int],
        running: int,
        approvals: int = 0,
        breakers: Mapping[str, bool] = MappingProxyType({}),
    ) -> None:
        self._counts: defaultdict[str, list[tuple[list[str], float]]] = defaultdict(list)
        for field, value in counts.items():
            metric, *labels = field.split(stats.SEPARATOR)
            self._counts[metric].append((labels, value))
        self._depths = depths
        self._running = running
        self._approvals = approvals
        self._breakers = breakers

    def collect(self) -> Iterable[Family]:
        """The metric families."""
        yield from self._counters()
        yield from self._histograms()
        depth = GaugeMetricFamily(f"{PREFIX}queue_depth", "Tickets in a queue.", labels=["queue"])
        for queue, size in self._depths.items():
            depth.add_metric([queue], size)
        yield depth
        yield GaugeMetricFamily(f"{PREFIX}running_jobs", "Jobs that some worker holds.", value=self._running)
        yield GaugeMetricFamily(f"{PREFIX}approvals_pending", "Calls that wait for a person.", value=self._approvals)
        text = "1 while the circuit breaker of a target is open: no model call goes there."
        breakers = GaugeMetricFamily(f"{PREFIX}breaker_open", text, labels=["target"])
        for target, is_open in self._breakers.items():
            breakers.add_metric([target], is_open)
        yield breakers

    def _counters(self) -> Iterator[Family]:
        for metric, (labels, text) in COUNTERS.items():
            family = CounterMetricFamily(PREFIX + metric, text, labels=labels)
            found = self._counts.get(metric, [])
            for values, count in found if found or labels else [([], 0.0)]:
                if len(values) == len(labels):
                    family.add_metric(values, count)
            yield family

    def _histograms(self) -> Iterator[Family]:
        for metric, text in HISTOGRAMS.items():
            fields = {tuple(labels): value for labels, value in self._counts.get(metric, [])}
            bounds = [*map(str, map(float, stats.BUCKETS[metric])), "+Inf"]
            count, buckets = 0.0, []
            for number, bound in enumerate(bounds):
                count += fields.get(("bucket", str(number)), 0)
                buckets.append((bound, count))
            yield HistogramMetricFamily(PREFIX + metric, text, buckets=buckets, sum_value=fields.get(("sum",), 0.0))


async def render(link: RedisLink, tickets: Tickets) -> bytes:
    """The metrics in Prometheus's text format. Raises UnavailableError."""
    counts, depths, running, approvals, seen, webhooks = await asyncio.gather(
        stats.read(link),
        tickets.depths(),
        tickets.running(),
        Approvals(link).pending(),
        breaker.read(link),
        Deliveries(link).depth(),
    )
    registry = CollectorRegistry(auto_describe=False)
    depths[WEBHOOKS] = webhooks
    registry.register(Snapshot(counts, depths, running, approvals, {target: row.open for target, row in seen.items()}))
    return generate_latest(registry)
