"""A thousand jobs that wait on a model at once, in one worker process."""

from __future__ import annotations

import time

from bench.fill import fill
from bench.http import client, script
from bench.process import Process
from bench.report import Goal, Section
from bench.stack import Stack

JOBS = 1_000
LATENCY = 2.0
MIB = 1024 * 1024
TURNS = 3
SAMPLE_SECONDS = 0.08


def measure(stack: Stack, scale: float) -> Section:
    """Gathers the jobs while the worker is held, then lets it take them all."""
    jobs = int(JOBS * scale)
    latency = LATENCY * scale
    model_url = stack.simulator(latency)
    worker = stack.worker(jobs, model_url)
    stack.hold()
    fill(stack.redis_url, jobs, script(TURNS))
    idle = worker.pss()
    begun = time.perf_counter()
    stack.release()
    peak, held = _watch(stack, worker, jobs)
    seconds = time.perf_counter() - begun
    with client(stack, model_url) as simulator:
        at_once = simulator.get("/_sim/stats").json()["max_concurrent"]
    section = Section(
        "density",
        f"{jobs:,} jobs of {TURNS} model calls of {latency:g} s each, all at once in one worker process with "
        f"NIGHTSHIFT_CONCURRENCY={jobs}. Memory is the proportional set size from smaps_rollup; idle is before the "
        "first job, the peak is that of samples every 0.1 s.",
    )
    section.add("jobs done", jobs, "jobs")
    section.add("jobs held at once", held, "jobs")
    section.add("model calls open at once", at_once, "calls")
    section.add("worker PSS, peak", peak / MIB, "MiB", Goal("<=", 200))
    section.add("a waiting job", (peak - idle) / jobs / 1024, "KiB", Goal("<=", 120))
    section.add("worker PSS, idle", idle / MIB, "MiB")
    section.add("makespan", seconds, "s")
    return section


def _watch(stack: Stack, worker: Process, jobs: int) -> tuple[int, int]:
    """The highest PSS, and the most jobs that the worker held at once, until all have completed."""
    peak = held = 0

    def sample() -> None:
        nonlocal peak, held
        worker.check()
        peak, held = max(peak, worker.pss()), max(held, stack.running())
        time.sleep(SAMPLE_SECONDS)  # reading the kernel's sums stops the worker for a few ms

    stack.until_completed(jobs, seconds=120, meanwhile=sample)
    return peak, held
