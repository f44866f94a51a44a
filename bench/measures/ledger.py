"""What the records of one model call cost: reserve, settle and journal, with a model that answers from memory."""

from __future__ import annotations

from bench.fill import fill
from bench.report import Section
from bench.stack import Stack

JOBS = 400
CONCURRENCY = 100
TURNS = (1, 11)


def measure(stack: Stack, scale: float) -> Section:
    """The slope between jobs of few and of many turns: what a turn adds."""
    jobs = max(20, int(JOBS * scale))
    few, many = (_run(stack, jobs, turns) for turns in TURNS)
    more = TURNS[1] - TURNS[0]
    section = Section(
        "ledger",
        f"The whole worker with a model that answers from memory: {jobs} jobs of {TURNS[0]} turn and {jobs} of "
        f"{TURNS[1]}; the difference, for each further turn, is pricing, reserve, settle, the journal, and one trivial "
        "tool call with its intent and its result. A turn with a tool call is four round trips to Redis, shared with "
        "the other jobs of the process.",
    )
    section.add("worker", (many[0] - few[0]) / jobs / more * 1e6, "µs CPU a turn")
    section.add("Redis", (many[1] - few[1]) / jobs / more * 1e6, "µs CPU a turn")
    section.add("worker, claim to completion of a job of one turn", few[0] / jobs * 1e6, "µs CPU a job")
    section.add("Redis, the same", few[1] / jobs * 1e6, "µs CPU a job")
    return section


def _run(stack: Stack, jobs: int, turns: int) -> tuple[float, float]:
    """CPU seconds of the worker and of Redis."""
    worker = stack.worker(CONCURRENCY, kind="instant-worker")
    stack.hold()
    fill(stack.redis_url, jobs, str(turns))
    before = worker.cpu(), stack.redis.cpu()
    stack.release()
    stack.until_completed(jobs, seconds=180)
    spent = worker.cpu() - before[0], stack.redis.cpu() - before[1]
    stack.reset()
    return spent
