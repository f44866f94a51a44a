"""What one worker process says of itself to Prometheus, when NIGHTSHIFT_METRICS_PORT is set.

The fleet's metrics are the API's at `/metrics`; these are of this process alone: memory, CPU, and what it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class WorkerCollector(Collector):
    """Reads the worker at scrape time."""

    def __init__(self, running: Callable[[], int], concurrency: int) -> None:
        self._running = running
        self._concurrency = concurrency

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("nightshift_worker_running_jobs", "Jobs that this process runs.", value=self._running())
        yield GaugeMetricFamily(
            "nightshift_worker_concurrency", "Jobs that it may run at once.", value=self._concurrency
        )


def serve_metrics(host: str, port: int, running: Callable[[], int], concurrency: int) -> Callable[[], None]:
    """Serves them at an address; returns what stops it. Raises OSError."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(running, concurrency))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    server, thread = start_http_server(port, host, registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
