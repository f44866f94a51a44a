"""No-op jobs through our worker class against arq: what a job costs beside its work."""

from __future__ import annotations

import time
from statistics import median
from urllib.parse import unquote

from bench.fill import fill
from bench.process import ROOT, BenchError, Process, run_peer
from bench.report import Goal, Section
from bench.stack import Stack

JOBS = 5_000
CONCURRENCY = 500
ROUNDS = 3
ARQ_PYTHON = ROOT / ".venv-bench" / "bin" / "python"


def measure(stack: Stack, scale: float) -> Section:
    """Rounds of both in turns, so that what else the machine does hits both."""
    if not ARQ_PYTHON.exists():
        raise BenchError("there is no .venv-bench; `make bench` makes it")
    jobs = int(JOBS * scale)
    rounds = max(1, round(ROUNDS * scale))
    measured = [(_ours(stack, jobs), _arq(stack, jobs)) for _ in range(rounds)]
    ours, arq = zip(*measured, strict=True)
    section = Section(
        "queue",
        f"{jobs:,} no-op jobs, enqueued beforehand, through one worker process with {CONCURRENCY} at once, median of "
        f"{rounds} rounds. Ours is claim and completion with all the records kept: attempt, lease, journal entries, "
        "indexes, counters, RQ's registries; the executor in between does nothing. arq pops, calls and keeps a "
        "result. Same Redis, both under uvloop.",
    )
    rate, cpu, redis = (median(column) for column in zip(*ours, strict=True))
    arq_rate, arq_cpu, arq_redis = (median(column) for column in zip(*arq, strict=True))
    section.add("jobs/s against arq", rate / arq_rate, "×", Goal(">=", 1.5))
    section.add("ours", rate, "jobs/s")
    section.add("arq", arq_rate, "jobs/s")
    section.add("ours, CPU of the worker", cpu, "µs a job")
    section.add("arq, CPU of the worker", arq_cpu, "µs a job")
    section.add("ours, CPU of Redis", redis, "µs a job")
    section.add("arq, CPU of Redis", arq_redis, "µs a job")
    return section


def _ours(stack: Stack, jobs: int) -> tuple[float, float, float]:
    """Jobs/s, and µs a job of the worker and of Redis."""
    worker = stack.worker(CONCURRENCY, kind="noop-worker")
    stack.hold()
    fill(stack.redis_url, jobs)
    seconds, spent = _timed(stack, worker, jobs)
    stack.reset()
    return jobs / seconds, spent[0] / jobs * 1e6, spent[1] / jobs * 1e6


def _timed(stack: Stack, worker: Process, jobs: int) -> tuple[float, tuple[float, float]]:
    before, begun = (worker.cpu(), stack.redis.cpu()), time.perf_counter()
    stack.release()
    stack.until_completed(jobs, seconds=120)
    seconds = time.perf_counter() - begun
    return seconds, (worker.cpu() - before[0], stack.redis.cpu() - before[1])


def _arq(stack: Stack, jobs: int) -> tuple[float, float, float]:
    socket = unquote(stack.redis_url.removeprefix("unix://"))
    answer = run_peer(
        "bench.peers.arq_noop", "--socket", socket, "--jobs", jobs, "--concurrency", CONCURRENCY,
        python=str(ARQ_PYTHON), seconds=180,
    )  # fmt: skip
    stack.reset()
    return jobs / answer["seconds"], answer["cpu"] / jobs * 1e6, answer["redis_cpu"] / jobs * 1e6
