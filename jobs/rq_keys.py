"""The Redis keys that are RQ's. They have the names that RQ gives them, so that its own tools see our queues."""

from __future__ import annotations

QUEUES = "rq:queues"
SUSPENDED = "rq:suspended"
QUEUE_PREFIX = "rq:queue:"
WIP_PREFIX = "rq:wip:"
JOB_PREFIX = "rq:job:"
EXECUTION_PREFIX = "rq:execution:"
EXECUTIONS_PREFIX = "rq:executions:"
REGISTRIES = {"completed": "finished", "failed": "failed"}
"""RQ's registry of what ended in one of our statuses; of the others it says that they were canceled."""


def queue(queue: str) -> str:
    return QUEUE_PREFIX + queue


def wip(queue: str) -> str:
    """Sorted set: `job:execution` of what runs; the score is the end of the lease plus `queue.LEASE_MARGIN`."""
    return WIP_PREFIX + queue


def registry(status: str, queue: str) -> str:
    """Sorted set: jobs that ended, in RQ's words, by the time in seconds at which RQ forgets them."""
    return f"rq:{REGISTRIES.get(status, 'canceled')}:{queue}"


def job(job_id: str) -> str:
    return JOB_PREFIX + job_id


def execution(job_id: str, token: str) -> str:
    return f"{EXECUTION_PREFIX}{job_id}:{token}"


def executions(job_id: str) -> str:
    return EXECUTIONS_PREFIX + job_id
