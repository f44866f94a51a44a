"""A worker is killed with jobs in its hands: how long until an idle second one runs them all again."""

from __future__ import annotations

import json
import time
from typing import Any

from bench.fill import fill
from bench.process import wait_for
from bench.report import Goal, Section, percentile
from bench.stack import TENANT, Stack
from jobs import keys
from jobs.journal import parse_line

JOBS = 50
LEASES = (6, 15)
QUICK_LEASES = (2,)
ENDLESS = f"#sim {json.dumps({'turns': [{'text': 'never', 'latency': 600}]})}"


def measure(stack: Stack, scale: float) -> Section:
    """One kill for each lease."""
    jobs = int(JOBS * scale)
    section = Section(
        "takeover",
        f"{jobs} jobs wait on the model in one worker, which gets a SIGKILL while a second worker is idle: from the "
        "kill to the start of each job's second attempt in its journal, by one clock. A lease is renewed three times "
        "in its length, and a reaper looks each second.",
    )
    for lease in LEASES if scale >= 1 else QUICK_LEASES:
        delays = _kill(stack, jobs, lease)
        name = f"lease of {lease} s"
        section.add(f"{name}: p50", percentile(delays, 0.5), "s")
        section.add(f"{name}: p99", percentile(delays, 0.99), "s")
        section.add(f"{name}: p99 in leases", percentile(delays, 0.99) / lease, "leases", Goal("<=", 1.2))
        stack.reset()
    return section


def _kill(stack: Stack, jobs: int, lease: int) -> list[float]:
    """Seconds until each job ran again."""
    model_url = stack.simulator(0)
    first = stack.worker(jobs, model_url, lease=lease)
    fill(stack.redis_url, jobs, ENDLESS)
    wait_for("the first worker's jobs", lambda: stack.running() == jobs, 30)
    second = stack.worker(jobs, model_url, lease=lease)
    time.sleep(1.5 * lease)  # a reaper takes nothing from anyone before it has been in touch for a lease
    killed = time.time()
    first.kill()
    delays = wait_for("the second attempts", lambda: _delays(stack, jobs, killed), 5 * lease + 10)
    second.kill()  # a drain would wait for jobs that never end
    return delays


def _delays(stack: Stack, jobs: int, killed: float) -> list[float] | None:
    """None as long as one is missing."""
    found: list[float] = []
    ids: Any = stack.db.zrange(keys.all_jobs(TENANT), 0, -1)
    for job_id in ids:
        items: Any = stack.db.xrange(keys.journal(job_id.decode()))
        lines = [parse_line(item) for item in items]
        found += [line.ms / 1000 - killed for line in lines if line.type == "job.started" and line.attempt == 2]
    return found if len(found) == jobs else None
