"""The Redis keys of the queue. Those under `rq:` are RQ's and have the names that RQ gives them, so that its own tools
see our queues; those under `ns:` say which of them is served next.
"""

from __future__ import annotations

from jobs.keys import LIMITS_PREFIX, PREFIX, WAKE_PREFIX

# ---- RQ's own

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


# ---- whose turn it is; see `jobs.lanes`

WAITS = f"{PREFIX}waits"
"""Set: the limits of running jobs that hold lanes back, as `tenant:scope`."""
TURNS = f"{PREFIX}turns"
"""String: how many turns the lanes of tickets were given; it says which was served the longest ago."""
ROTATION_PREFIX = f"{PREFIX}rotation:"
RUNNING_PREFIX = f"{PREFIX}running:"
WAITING_PREFIX = f"{PREFIX}waiting:"
HELD_BACK_PREFIX = f"{PREFIX}held_back:"


def running(tenant: str, scope: str) -> str:
    """Set: jobs of a tenant that run and count for a scope: `tenant`, `agent:{a}` or `key:{k}`."""
    return f"{RUNNING_PREFIX}{tenant}:{scope}"


def held_back(lane: str, scope: str) -> str:
    """List: tickets of a lane that the limit of a scope holds back."""
    return f"{HELD_BACK_PREFIX}{lane}|{scope}"


def lane_names() -> dict[str, str]:
    """The prefixes and keys of `lanes.lua`."""
    return {
        "queue": QUEUE_PREFIX,
        "wip": WIP_PREFIX,
        "queues": QUEUES,
        "rotation": ROTATION_PREFIX,
        "running": RUNNING_PREFIX,
        "waiting": WAITING_PREFIX,
        "held": HELD_BACK_PREFIX,
        "waits": WAITS,
        "turns": TURNS,
        "limits": LIMITS_PREFIX,
        "wake": WAKE_PREFIX,
    }
