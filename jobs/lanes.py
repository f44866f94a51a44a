"""Lanes: the tickets of one tenant in a queue, as an RQ queue of their own. The lanes of a queue take turns, so that a
tenant with many jobs does not keep those of another waiting; a limit of running jobs holds tickets back beside them.
"""

from __future__ import annotations

import json

from jobs import queue_keys
from jobs.records import JobSpec

MOST_WAKES = 64
NAMES = json.dumps({**queue_keys.lane_names(), "most_wakes": MOST_WAKES})
"""What `lanes.lua` makes its keys of."""


def queue_name(pool: str, priority: str) -> str:
    """The queue of a pool and a priority, as the metrics have it."""
    return f"{pool}.{priority}"


def side_queue(queue: str, spec: JobSpec) -> str:
    """The queue of jobs of one agent version, out of another queue, that only workers with that version take from."""
    return f"{queue}@{spec.agent}@{spec.agent_version}"


def lane_of(queue: str, tenant: str) -> str:
    """The RQ queue that a tenant's tickets of a queue are in, as `rq info` lists it."""
    base, at, side = queue.partition("@")
    return f"{base}~{tenant}{at}{side}"


def home(tenant: str, spec: JobSpec) -> str:
    """The lane of a job."""
    return lane_of(queue_name(spec.pool, spec.priority), tenant)


def scopes_of(spec: JobSpec) -> list[str]:
    """The scopes whose limits may hold the tickets of a job back, beside that of its tenant."""
    own = [] if spec.concurrency is None else [f"key:{spec.concurrency['key']}"]
    return [*own, f"agent:{spec.agent}"]


def places(tenant: str, spec: JobSpec) -> list[str]:
    """The keys of all lists in which a ticket of the job may stand. Those of an earlier version are in no lane."""
    queue, lane = queue_name(spec.pool, spec.priority), home(tenant, spec)
    lanes, queues = (lane, side_queue(lane, spec)), (queue, side_queue(queue, spec))
    held = [queue_keys.held_back(name, scope) for name in lanes for scope in scopes_of(spec)]
    return [*map(queue_keys.queue, (*lanes, *queues)), *held]
